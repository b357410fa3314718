//! Reads along with the HTTP parser and refuses what two parsers could understand differently: a bare line feed,
//! Content-Length beside Transfer-Encoding, more than one of either, a coding other than `chunked`, folded
//! lines. Behind any of these another program may see another request than the edge does.
//!
//! It follows the framing exactly (heads, counted and chunked bodies), so that it knows where each head begins;
//! it refuses to know what a head means.

/// What makes a request ambiguous. The client gets 400 and the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("a carriage return is not followed by a line feed")]
    BareCarriageReturn,
    #[error("a header line begins with a space: folded headers are obsolete")]
    Folded,
    #[error("Content-Length is given more than once")]
    DuplicateLength,
    #[error("Content-Length is not a number")]
    Length,
    #[error("Content-Length and Transfer-Encoding are both given")]
    LengthAndEncoding,
    #[error("Transfer-Encoding is not chunked alone")]
    Encoding,
    #[error("a chunk's size is malformed")]
    Chunk,
    #[error("the size of a chunk, or a trailer, is too long")]
    LineTooLong,
    /// Answered with 431.
    #[error("request line and headers are too large")]
    HeadTooLarge,
}

/// Where in the stream of requests the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before the first byte of a request.
    Idle,
    Head,
    Body,
    /// After a request that asks to upgrade: what comes next depends on the answer.
    Undecided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request line; empty lines may come first.
    Start,
    RequestLine,
    HeaderLine,
    /// This many bytes of body are left.
    Counted(u64),
    ChunkSize,
    ChunkData(u64),
    /// The CRLF after a chunk's data.
    ChunkEnd,
    TrailerLine,
    Undecided,
}

#[derive(Debug)]
pub struct Scanner {
    place: Place,
    /// A line that came in pieces.
    line: Vec<u8>,
    head: Head,
    /// Bytes of the head that is being read.
    head_bytes: usize,
    max_head: usize,
}

/// Bound on a chunk's size with its extensions, and on a trailer.
const MAX_BODY_LINE: usize = 4096;

/// What the headers of one request have said about its end.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// How far a piece of input was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    All,
    /// The first bytes end a request that asks to upgrade; the others are not understood yet.
    Until(usize),
    /// The first bytes are sound, and those after them must not reach anybody.
    Refused(usize, Violation),
}

impl Scanner {
    pub fn new(max_head: usize) -> Self {
        Self { place: Place::Start, line: Vec::new(), head: Head::default(), head_bytes: 0, max_head }
    }

    pub fn at(&self) -> At {
        match self.place {
            Place::Start => At::Idle,
            Place::RequestLine | Place::HeaderLine => At::Head,
            Place::Counted(_)
            | Place::ChunkSize
            | Place::ChunkData(_)
            | Place::ChunkEnd
            | Place::TrailerLine => At::Body,
            Place::Undecided => At::Undecided,
        }
    }

    /// Bytes after which no parser takes the input for a request, and the answer is the right one.
    pub fn spoiler(&self, violation: Violation) -> &'static [u8] {
        match (violation, self.place) {
            // Ends the head, which is too large by now, at whatever place it was.
            (Violation::HeadTooLarge, Place::RequestLine) => b" HTTP/1.1\r\n\r\n",
            (Violation::HeadTooLarge, _) => b"x:\r\n\r\n",
            _ => b"\0\r\n\r\n",
        }
    }

    /// The request that asked to upgrade was answered without: another one may follow.
    pub fn not_upgraded(&mut self) {
        if self.place == Place::Undecided {
            self.place = Place::Start;
        }
    }

    pub fn feed(&mut self, input: &[u8]) -> Scan {
        let mut done = 0;
        while done < input.len() {
            if self.place == Place::Undecided {
                return Scan::Until(done);
            }
            let rest = &input[done..];
            let step = match self.place {
                Place::Counted(left) => Ok(
                    self.skip(rest, left, |left| if left == 0 { Place::Start } else { Place::Counted(left) })
                ),
                Place::ChunkData(left) => Ok(self.skip(rest, left, |left| {
                    if left == 0 { Place::ChunkEnd } else { Place::ChunkData(left) }
                })),
                _ => self.take_line(rest),
            };
            match step {
                Ok(taken) => {
                    done += taken;
                    if self.at() == At::Head {
                        self.head_bytes += taken;
                        if self.head_bytes > self.max_head {
                            return Scan::Refused(done, Violation::HeadTooLarge);
                        }
                    }
                }
                Err(violation) => return Scan::Refused(done, violation),
            }
        }
        Scan::All
    }

    fn skip(&mut self, rest: &[u8], left: u64, then: impl Fn(u64) -> Place) -> usize {
        let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.place = then(left - taken as u64);
        if self.place == Place::Start {
            self.end_request();
        }
        taken
    }

    /// Takes a line, or the piece of one that is there.
    fn take_line(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        if self.place == Place::Start {
            self.place = Place::RequestLine;
        }
        let Some(end) = memchr::memchr(b'\n', rest) else {
            if self.at() == At::Body && self.line.len() + rest.len() > MAX_BODY_LINE {
                return Err(Violation::LineTooLong);
            }
            self.line.extend_from_slice(rest);
            return Ok(rest.len());
        };
        if self.line.is_empty() {
            self.whole_line(&rest[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&rest[..end]);
            self.whole_line(&line)?;
        }
        Ok(end + 1)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let Some(line) = line.strip_suffix(b"\r") else { return Err(Violation::BareLineFeed) };
        if memchr::memchr(b'\r', line).is_some() {
            return Err(Violation::BareCarriageReturn);
        }
        match self.place {
            Place::RequestLine if line.is_empty() => self.place = Place::Start,
            Place::RequestLine => {
                self.head = Head::default();
                self.head_bytes = 0;
                self.place = Place::HeaderLine;
            }
            Place::HeaderLine if line.is_empty() => self.end_head(),
            Place::HeaderLine => self.head.take(line)?,
            Place::ChunkSize => self.chunk_size(line)?,
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::ChunkEnd => return Err(Violation::Chunk),
            Place::TrailerLine if line.is_empty() => self.end_request(),
            Place::TrailerLine => Head::default().take(line).or(Err(Violation::Chunk))?,
            Place::Start | Place::Counted(_) | Place::ChunkData(_) | Place::Undecided => {}
        }
        Ok(())
    }

    fn end_head(&mut self) {
        if self.head.chunked {
            self.place = Place::ChunkSize;
        } else {
            match self.head.length {
                Some(length @ 1..) => self.place = Place::Counted(length),
                Some(0) | None => self.end_request(),
            }
        }
    }

    fn end_request(&mut self) {
        self.place = if self.head.upgrade { Place::Undecided } else { Place::Start };
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Violation> {
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let after = line[digits..].trim_ascii_start();
        let extension_ok = after.is_empty() || after[0] == b';';
        if !(1..=16).contains(&digits) || !extension_ok {
            return Err(Violation::Chunk);
        }
        let text = std::str::from_utf8(&line[..digits]).map_err(|_| Violation::Chunk)?;
        let size = u64::from_str_radix(text, 16).map_err(|_| Violation::Chunk)?;
        self.place = if size == 0 { Place::TrailerLine } else { Place::ChunkData(size) };
        Ok(())
    }
}

impl Head {
    fn take(&mut self, line: &[u8]) -> Result<(), Violation> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Violation::Folded);
        }
        // A line without a colon, or with a space before it, is refused by the parser behind.
        let Some(colon) = memchr::memchr(b':', line) else { return Ok(()) };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.take_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.take_encoding(value)?,
            _ => {}
        }
        if self.chunked && self.length.is_some() { Err(Violation::LengthAndEncoding) } else { Ok(()) }
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.is_some() {
            return Err(Violation::DuplicateLength);
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| digits).ok_or(Violation::Length)?;
        self.length = Some(text.parse().map_err(|_| Violation::Length)?);
        Ok(())
    }

    fn take_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Violation::Encoding);
        }
        self.chunked = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(input: &[u8]) -> (Scan, At) {
        let mut scanner = Scanner::new(1024);
        let scan = scanner.feed(input);
        (scan, scanner.at())
    }

    const SOUND: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\rcGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\n\n\n\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\nTrailer: x\r\n\r\n",
    ];

    #[test]
    fn sound_requests_pass_and_end_idle() {
        for input in SOUND {
            assert_eq!(scan(input.as_bytes()), (Scan::All, At::Idle), "{input:?}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        for (input, violation) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Violation::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Violation::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Violation::BareLineFeed),
            ("\nGET / HTTP/1.1\r\n", Violation::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n", Violation::BareCarriageReturn),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n", Violation::Folded),
            ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n", Violation::Folded),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n", Violation::DuplicateLength),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n", Violation::DuplicateLength),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n", Violation::Length),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n", Violation::Length),
            ("GET / HTTP/1.1\r\nContent-Length: \r\n", Violation::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", Violation::Length),
            (
                "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
                Violation::LengthAndEncoding,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                Violation::LengthAndEncoding,
            ),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", Violation::Encoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n", Violation::Encoding),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Violation::Encoding,
            ),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Violation::Chunk),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Violation::Chunk),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", Violation::Chunk),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n", Violation::Chunk),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n", Violation::BareLineFeed),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", Violation::Chunk),
            (
                "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: x\r\n",
                Violation::Chunk,
            ),
        ] {
            let (found, _) = scan(input.as_bytes());
            assert!(matches!(found, Scan::Refused(_, v) if v == violation), "{input:?}: {found:?}");
        }
        assert_eq!(scan(&[b'a'; 2000]).0, Scan::Refused(2000, Violation::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(400));
        assert!(matches!(scan(many.as_bytes()).0, Scan::Refused(_, Violation::HeadTooLarge)));
        let chunk = format!("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(5000));
        assert!(matches!(scan(chunk.as_bytes()).0, Scan::Refused(_, Violation::LineTooLong)));
    }

    #[test]
    fn what_follows_a_request_to_upgrade_waits_for_the_answer() {
        let ask = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let mut scanner = Scanner::new(1024);
        assert_eq!(scanner.feed(format!("{ask}\x01\n").as_bytes()), Scan::Until(ask.len()));
        assert_eq!(scanner.at(), At::Undecided);
        scanner.not_upgraded();
        assert_eq!((scanner.feed(SOUND[0].as_bytes()), scanner.at()), (Scan::All, At::Idle));
    }

    proptest! {
        /// However a stream is cut, the verdict is the same.
        #[test]
        fn cuts_do_not_matter(
            which in proptest::collection::vec(0..SOUND.len(), 1..4),
            spoil in proptest::option::of((0..200_usize, proptest::sample::select(vec![b'\n', b'\r', b' ', b'x', b'0']))),
            cuts in proptest::collection::vec(1..20_usize, 0..40),
        ) {
            let mut input: Vec<u8> = which.iter().flat_map(|&n| SOUND[n].bytes()).collect();
            if let Some((at, byte)) = spoil {
                let at = at % input.len();
                input[at] = byte;
            }
            let whole = scan(&input);
            let mut scanner = Scanner::new(1024);
            let (mut rest, mut cut) = (&input[..], cuts.iter());
            let mut found = Scan::All;
            while !rest.is_empty() && found == Scan::All {
                let n = cut.next().copied().unwrap_or(rest.len()).min(rest.len());
                found = scanner.feed(&rest[..n]);
                rest = &rest[n..];
            }
            let refused = |scan| match scan { Scan::Refused(_, v) => Some(v), Scan::All | Scan::Until(_) => None };
            prop_assert_eq!(refused(found), refused(whole.0));
            if found == Scan::All {
                prop_assert_eq!(scanner.at(), whole.1);
            }
        }
    }
}
