//! Why a request got no answer from any upstream, and what the client is told instead.

use std::io;

use http::{Response, StatusCode};

use crate::{
    body::{ResponseBody, UploadFault},
    compiled::Service,
    pool::ConnectError,
    problem,
};

/// Why there is no answer. What the client is told of it names no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Unreachable,
    ConnectTimedOut,
    Broken,
    AnswerTimedOut,
    Malformed,
    Upload(UploadFault),
}

impl Failure {
    pub fn of_connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::TimedOut(_) => Self::ConnectTimedOut,
            ConnectError::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Refused,
            ConnectError::Failed(_) | ConnectError::Handshake(_) => Self::Unreachable,
        }
    }

    /// What the client is told.
    pub fn answer(self, service: &Service) -> Response<ResponseBody> {
        let key = &service.key;
        match self {
            Self::Refused => problem::problem(
                StatusCode::BAD_GATEWAY,
                &format!("{key} does not accept connections; `setpoint explain {key}` says why"),
            ),
            Self::Unreachable => {
                problem::problem(StatusCode::BAD_GATEWAY, &format!("{key} cannot be reached"))
            }
            Self::ConnectTimedOut => problem::problem(
                StatusCode::GATEWAY_TIMEOUT,
                &format!("{key} did not accept the connection in time"),
            ),
            Self::Broken => problem::problem(
                StatusCode::BAD_GATEWAY,
                &format!("{key} closed the connection before it answered"),
            ),
            Self::AnswerTimedOut => {
                problem::problem(StatusCode::GATEWAY_TIMEOUT, &format!("{key} did not answer in time"))
            }
            Self::Malformed => problem::problem(
                StatusCode::BAD_GATEWAY,
                &format!("the answer of {key} is not valid HTTP/1.1"),
            ),
            Self::Upload(UploadFault::TooLarge) => {
                problem::closing(StatusCode::PAYLOAD_TOO_LARGE, &UploadFault::TooLarge.to_string())
            }
            Self::Upload(fault) => problem::closing(StatusCode::BAD_REQUEST, &fault.to_string()),
        }
    }
}
