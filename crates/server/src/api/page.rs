//! The OpenAPI document and the page that shows it: own script, own style, nothing from elsewhere.

use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};

use super::Api;

pub async fn openapi(State(api): State<Api>) -> Response {
    let document: Bytes = api.openapi.clone();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

pub async fn html() -> Html<&'static str> {
    Html(include_str!("page/page.html"))
}

pub async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page/page.js")).into_response()
}

pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page/page.css")).into_response()
}
