//! Answers that the edge makes itself: short, in plain words, without anything that the client should not know.

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};

use crate::body::ResponseBody;

/// A status with one sentence: what happened, and where it helps what to do next.
pub fn problem(status: StatusCode, what: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(format!("{status}: {what}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The request cannot be trusted to end where it seems to: the connection ends with the answer.
pub fn closing(status: StatusCode, what: &str) -> Response<ResponseBody> {
    let mut response = problem(status, what);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pub fn unavailable(service: &model::ServiceKey) -> Response<ResponseBody> {
    let what = format!("nothing serves {service} at this moment; try again");
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &what);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub fn method_not_allowed(allow: &'static str) -> Response<ResponseBody> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this takes {allow}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
