//! What a shard's task has taken out of its mailbox and not served yet.

use std::collections::VecDeque;

use drumlin_coordinator::ErrorCode;
use tokio::time::Instant;

use super::driver::Mail;

/// Mail that waits, oldest first.
#[derive(Default)]
pub(super) struct Held {
    mail: VecDeque<Mail>,
}

impl Held {
    pub fn push(&mut self, mail: Mail) {
        self.mail.push_back(mail);
    }

    pub fn len(&self) -> usize {
        self.mail.len()
    }

    /// Takes all of it.
    pub fn take(&mut self) -> VecDeque<Mail> {
        std::mem::take(&mut self.mail)
    }

    /// Takes the questions for metrics: they only read, and need not wait for the store as requests do.
    pub fn take_reports(&mut self) -> Vec<Mail> {
        let is_report = |mail: &Mail| matches!(mail, Mail::Report { .. });
        if !self.mail.iter().any(is_report) {
            return Vec::new();
        }
        let (reports, requests) = self.take().into_iter().partition::<Vec<_>, _>(is_report);
        self.mail = requests.into();
        reports
    }

    /// When the next request has waited for too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.mail.iter().find_map(until)
    }

    /// Sends away requests that have waited for too long.
    pub fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|until| until <= now) {
            // A question for metrics that is in the way has waited for longer than its asker does.
            if let Some(Mail::Request { request, answer, .. }) = self.mail.pop_front() {
                let _ = answer.send(request.failed(ErrorCode::CoordinatorNotAvailable));
            }
        }
    }

    /// Answers every request with this.
    pub fn refuse(&mut self, error: ErrorCode) {
        for mail in self.mail.drain(..) {
            if let Mail::Request { request, answer, .. } = mail {
                let _ = answer.send(request.failed(error));
            }
        }
    }
}

fn until(mail: &Mail) -> Option<Instant> {
    match mail {
        Mail::Request { until, .. } => Some(*until),
        Mail::Report { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drumlin_coordinator::{Caller, GroupRequest, GroupResponse};
    use tokio::sync::oneshot;

    use super::*;

    fn request(until: Instant) -> (Mail, oneshot::Receiver<GroupResponse>) {
        let (answer, answered) = oneshot::channel();
        let caller = Caller {
            client_id: "c".into(),
            client_host: "/h".into(),
            api_version: 0,
        };
        let request = Box::new(GroupRequest::DescribeGroup { group_id: "g".into() });
        let mail = Mail::Request {
            caller,
            request,
            answer,
            until,
        };
        (mail, answered)
    }

    fn report() -> Mail {
        let (answer, _) = oneshot::channel();
        Mail::Report { limit: 1, answer }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_for_metrics_keeps_no_request_waiting() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut held = Held::default();
        let (first, mut first_answered) = request(later(5));
        let (second, mut second_answered) = request(later(6));
        for mail in [report(), first, report(), second] {
            held.push(mail);
        }
        assert_eq!(held.next_expiry(), Some(later(5)), "behind the question");
        held.expire(later(4));
        assert!(first_answered.try_recv().is_err());
        held.expire(later(5));
        assert!(first_answered.try_recv().is_ok() && second_answered.try_recv().is_err());
        assert_eq!(held.next_expiry(), Some(later(6)));
        assert_eq!(held.take_reports().len(), 1);
        assert_eq!((held.len(), held.next_expiry()), (1, Some(later(6))));
        held.expire(later(6));
        assert!(second_answered.try_recv().is_ok());
        assert_eq!(held.len(), 0);
    }
}
