//! The names seen so far. Finds a path that comes twice, one that is both file and directory, and two that
//! differ only in case and would be one file elsewhere.

use std::collections::HashMap;

use model::artifact::RelPath;

use super::{Code, Error};

/// Folders within folders beyond this are refused; no real site comes near.
const MAX_DEPTH: usize = 100;
/// Bounds the memory that names alone can take.
const MAX_NAME_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// By parent and lower-cased name.
    nodes: HashMap<(u32, String), Node>,
    name_bytes: usize,
}

#[derive(Debug)]
struct Node {
    id: u32,
    name: Box<str>,
    is_dir: bool,
}

impl Tree {
    pub(crate) fn add_file(&mut self, path: &RelPath) -> Result<(), Error> {
        self.add(path, false)
    }

    pub(crate) fn add_directory(&mut self, path: &RelPath) -> Result<(), Error> {
        self.add(path, true)
    }

    fn add(&mut self, path: &RelPath, last_is_dir: bool) -> Result<(), Error> {
        let depth = path.as_str().split('/').count();
        if depth > MAX_DEPTH {
            let message = format!("lies {depth} folders deep; at most {MAX_DEPTH} are taken");
            return Err(Error::new(Code::TooDeep, message).about(path.as_str()));
        }
        let mut parent = 0;
        for (i, name) in path.as_str().split('/').enumerate() {
            let is_last = i + 1 == depth;
            let is_dir = !is_last || last_is_dir;
            parent = self.enter(parent, name, is_dir, is_last).map_err(|error| error.about(path.as_str()))?;
        }
        Ok(())
    }

    fn enter(&mut self, parent: u32, name: &str, is_dir: bool, is_last: bool) -> Result<u32, Error> {
        let fresh = self.nodes.len() as u32 + 1;
        let key = (parent, name.to_lowercase());
        if let Some(node) = self.nodes.get(&key) {
            return match collision(node, name, is_dir, is_last) {
                Some(error) => Err(error),
                None => Ok(node.id),
            };
        }
        self.name_bytes += name.len();
        if self.name_bytes > MAX_NAME_BYTES {
            return Err(Error::new(Code::TooManyEntries, "the names alone are too long; split the site"));
        }
        self.nodes.insert(key, Node { id: fresh, name: name.into(), is_dir });
        Ok(fresh)
    }
}

fn collision(node: &Node, name: &str, is_dir: bool, is_last: bool) -> Option<Error> {
    if *node.name != *name {
        let message = format!("differs from `{}` only in case; rename one of them", node.name);
        return Some(Error::new(Code::CaseCollision, message));
    }
    match (node.is_dir, is_dir) {
        (true, true) => None,
        (false, false) => {
            debug_assert!(is_last, "only the last name can be a file");
            Some(Error::new(Code::Duplicate, "comes twice; make the archive again"))
        }
        (true, false) | (false, true) => {
            let message = format!("needs `{name}` to be both a file and a folder; rename one of them");
            Some(Error::new(Code::FileAndDirectory, message))
        }
    }
}
