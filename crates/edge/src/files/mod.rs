//! Files of a site: one request, one folder, the one that its route table named.
//!
//! Reads as: `path` says what is asked for, `lookup` opens it without ever leaving the folder, `conditional` and
//! `range` say how much of it to send, `stream` sends it.

mod conditional;
mod lookup;
mod path;
mod range;
mod stream;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Uri,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
        LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::{
    body::ResponseBody,
    compiled::{Service, Site},
    flight::Ticket,
    problem,
};
use conditional::Verdict;
use lookup::{Entity, Found};
use range::Part;
pub use stream::FileBody;

/// What of a request matters to a file.
#[derive(Debug)]
pub struct Ask<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// Length of the path prefix by which the site was found: the folder stands for it.
    pub prefix: usize,
}

pub async fn answer(
    ask: Ask<'_>,
    service: &Arc<Service>,
    site: &Arc<Site>,
    ticket: Ticket,
) -> Response<ResponseBody> {
    if !matches!(*ask.method, Method::GET | Method::HEAD) {
        return problem::method_not_allowed("GET, HEAD");
    }
    let below = ask.uri.path().get(ask.prefix..).unwrap_or_default();
    let wanted = match path::parse(below) {
        Ok(wanted) => wanted,
        Err(error) => return problem::problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match lookup::lookup(site, &wanted).await {
        Ok(Found::File(entity)) => send(&ask, entity, service, ticket),
        Ok(Found::NotFoundPage(entity)) => {
            with_body(&ask, StatusCode::NOT_FOUND, entity, None, service, ticket)
        }
        Ok(Found::Directory) => to_directory(ask.uri),
        Ok(Found::Nothing) => problem::problem(StatusCode::NOT_FOUND, "this site has no such file"),
        Err(error) => unreadable(service, site, &error),
    }
}

/// The folder is gone or cannot be read: the node is putting it back, or an operator has to look.
fn unreadable(service: &Service, site: &Site, error: &lookup::Error) -> Response<ResponseBody> {
    tracing::debug!(service = %service.key, folder = %site.folder.display(), %error, "a site cannot be read");
    let what = format!("the files of {} cannot be read at this moment; try again", service.key);
    let mut response = problem::problem(StatusCode::SERVICE_UNAVAILABLE, &what);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn to_directory(uri: &Uri) -> Response<ResponseBody> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", uri.path());
    let mut response = problem::problem(StatusCode::MOVED_PERMANENTLY, "this is a folder");
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn send(ask: &Ask<'_>, entity: Entity, service: &Arc<Service>, ticket: Ticket) -> Response<ResponseBody> {
    match conditional::evaluate(ask.headers, &entity) {
        Verdict::NotModified => {
            let mut response = Response::new(ResponseBody::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            validators(response.headers_mut(), &entity);
            return response;
        }
        Verdict::Failed => {
            return problem::problem(StatusCode::PRECONDITION_FAILED, "the file is not the one you know");
        }
        Verdict::Send => {}
    }
    let part = if ask.method == Method::GET { range::evaluate(ask.headers, &entity) } else { Part::Whole };
    match part {
        Part::Whole => with_body(ask, StatusCode::OK, entity, None, service, ticket),
        Part::Range { first, last } => {
            with_body(ask, StatusCode::PARTIAL_CONTENT, entity, Some((first, last)), service, ticket)
        }
        Part::Unsatisfiable => {
            let mut response =
                problem::problem(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such range");
            insert_text(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{}", entity.size));
            response
        }
    }
}

fn with_body(
    ask: &Ask<'_>,
    status: StatusCode,
    entity: Entity,
    range: Option<(u64, u64)>,
    service: &Arc<Service>,
    ticket: Ticket,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(entity.content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::NOT_FOUND {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    } else {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        validators(headers, &entity);
    }
    if let Some((first, last)) = range {
        insert_text(headers, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", entity.size));
    }
    let (first, length) = range.map_or((0, entity.size), |(first, last)| (first, last - first + 1));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if ask.method == Method::GET {
        service.stats.bytes_out.fetch_add(length, Relaxed);
        *response.body_mut() = stream::body(entity.file, first, length, ticket);
    }
    response
}

fn validators(headers: &mut HeaderMap, entity: &Entity) {
    insert_text(headers, ETAG, &entity.etag);
    insert_text(headers, LAST_MODIFIED, &httpdate::fmt_http_date(entity.modified));
    // A browser asks each time and mostly hears 304: a new deployment is seen at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// Numbers, dates and quoted hex: always valid, but for a mistake of ours that must not be a panic.
fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
