//! Pure. Which failures are tried again: a set that is asked for each answer, in a few words of memory.

use model::resource::{GrpcCode, RetryCondition};

use super::Failure;

/// The least status that can be in it; there are [`STATUSES`] of them.
const FIRST_STATUS: u16 = 400;
/// 400 to 599.
const STATUSES: u16 = 200;
/// Answers that are tried again where nobody says others.
const GATEWAY_ERRORS: [u16; 3] = [502, 503, 504];
/// What is tried again where nobody says else, beside those.
const UNANSWERED: [RetryCondition; 3] =
    [RetryCondition::ConnectFailure, RetryCondition::Refused, RetryCondition::Reset];

/// A set of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Causes {
    connect: bool,
    refused: bool,
    reset: bool,
    /// A bit for each status from 400 to 599.
    statuses: [u64; 4],
    /// A bit for each status of gRPC.
    grpc: u32,
}

impl Causes {
    /// Nothing.
    const NONE: Self = Self { connect: false, refused: false, reset: false, statuses: [0; 4], grpc: 0 };

    /// What holds where nobody says anything: what was not answered, 502, 503 and 504.
    pub const DEFAULT: Self = {
        let unanswered = Self { connect: true, refused: true, reset: true, ..Self::NONE };
        unanswered.and(GATEWAY_ERRORS[0]).and(GATEWAY_ERRORS[1]).and(GATEWAY_ERRORS[2])
    };

    /// What users list. Without conditions what was not answered is tried again; without codes, too, gateway errors.
    pub fn new(
        conditions: &[RetryCondition],
        codes: impl ExactSizeIterator<Item = u16>,
        grpc: &[GrpcCode],
    ) -> Self {
        let mut causes = match (conditions, codes.len()) {
            ([], 0) => Self::DEFAULT,
            ([], _) => UNANSWERED.into_iter().fold(Self::NONE, Self::with),
            _ => conditions.iter().copied().fold(Self::NONE, Self::with),
        };
        causes = codes.fold(causes, Self::and);
        causes.grpc = grpc.iter().fold(0, |bits, code| bits | 1 << code.number());
        causes
    }

    /// Whether a failure is among them.
    pub fn have(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.connect,
            Failure::Refused => self.refused,
            Failure::Reset | Failure::Timeout => self.reset,
            Failure::Status(status) => bit(status).is_some_and(|(word, bit)| self.statuses[word] & bit != 0),
            Failure::Grpc(status) => status < 32 && self.grpc & (1 << status) != 0,
        }
    }

    fn with(mut self, condition: RetryCondition) -> Self {
        match condition {
            RetryCondition::ConnectFailure => self.connect = true,
            RetryCondition::Refused => self.refused = true,
            RetryCondition::Reset => self.reset = true,
            RetryCondition::GatewayError => return GATEWAY_ERRORS.into_iter().fold(self, Self::and),
            RetryCondition::ServerError => return (500..=599).fold(self, Self::and),
            RetryCondition::Retriable4xx => return self.and(409),
        }
        self
    }

    const fn and(mut self, status: u16) -> Self {
        if let Some((word, bit)) = bit(status) {
            self.statuses[word] |= bit;
        }
        self
    }
}

/// Where the bit of a status stands.
const fn bit(status: u16) -> Option<(usize, u64)> {
    if status < FIRST_STATUS || status >= FIRST_STATUS + STATUSES {
        return None;
    }
    let index = status - FIRST_STATUS;
    Some(((index / 64) as usize, 1 << (index % 64)))
}
