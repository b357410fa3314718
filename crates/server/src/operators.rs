//! What operators say that is about no declaration: a node is drained, a token is given out or taken back, a command is
//! run inside an instance. Durable and audited before it counts.

use std::sync::PoisonError;

use decide::access::{Denied, LOCAL, Permit};
use model::{
    Digest, InstanceId, Millis, NodeId, ProjectName, ServiceKey, TokenName,
    access::{Grant, Issued, Role},
    event::{Event, Kind},
    node::Drain,
    session::Exec,
};
use serde_json::{Value, json};
use store::{AuditEntry, Idempotency, StoreError, Told};

use crate::Control;

/// Each request compares with all of them.
const MOST_TOKENS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("there is no node {0}")]
    NoNode(NodeId),
    #[error("there is no token {0}")]
    NoToken(TokenName),
    #[error("a token {0} was given out already")]
    NameTaken(TokenName),
    #[error("`{LOCAL}` is what the token of the data folder is called in the audit trail")]
    NameReserved,
    #[error("{MOST_TOKENS} tokens were given out already")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Control {
    fn told(&self, permit: &Permit, action: &str, subject: &str, detail: Value) -> Told {
        let audit = AuditEntry {
            actor: permit.actor().into(),
            action: action.into(),
            subject: subject.into(),
            detail,
        };
        Told { at: self.now(), audit, events: Vec::new(), answer: None }
    }

    /// Lets a node take nothing new and move what it has; or ends that. Asked again, it changes nothing.
    pub async fn drain(&self, node: &NodeId, begin: bool, permit: &Permit) -> Result<(), OperatorError> {
        if !self.with_brain(|brain| brain.snapshot.cluster.nodes.contains_key(node)) {
            return Err(OperatorError::NoNode(node.clone()));
        }
        let (action, kind, message) = match begin {
            true => ("node.drain", Kind::NodeDraining, format!("node {node} is being drained")),
            false => ("node.undrain", Kind::NodeUndrained, format!("node {node} takes new instances again")),
        };
        let event = Event { kind, service: None, instance: None, deployment: None, message };
        let told = Told { events: vec![event], ..self.told(permit, action, node.as_str(), json!({})) };
        let changed = if begin {
            let drain = Drain { since: self.now(), by: permit.actor().into() };
            self.store().begin_drain(node.clone(), drain, told).await?
        } else {
            self.store().end_drain(node.clone(), told).await?
        };
        if changed {
            let drains = self.store().drains().await?;
            self.0.brain().set_drains(drains.into_iter().collect());
            self.0.wake.notify_one();
        }
        Ok(())
    }

    /// Whether somebody may have code run on the machine itself, by this service.
    pub fn may_run(&self, permit: &Permit, service: &ServiceKey) -> Result<(), Denied> {
        permit.may_run(service, self.0.rules)
    }

    /// Writes down who runs what inside an instance, before it runs. Its arguments may hold secrets and are not kept.
    pub async fn note_exec(
        &self,
        instance: &InstanceId,
        exec: &Exec,
        permit: &Permit,
    ) -> Result<(), OperatorError> {
        let program = exec.command.first().map(String::as_str).unwrap_or_default();
        let detail = json!({
            "program": program,
            "arguments": exec.command.len().saturating_sub(1),
            "tty": exec.tty.is_some(),
        });
        let told = self.told(permit, "exec", &instance.to_string(), detail);
        Ok(self.store().note(told).await?)
    }

    /// Looks at the tokens that were given out.
    pub fn issued<T>(&self, look: impl FnOnce(&[Issued]) -> T) -> T {
        look(&self.0.issued.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a token that is given out now may.
    pub fn grant(
        &self,
        name: TokenName,
        role: Role,
        project: Option<ProjectName>,
        expires_in: Option<Millis>,
        permit: &Permit,
    ) -> Grant {
        let now = self.now();
        Grant {
            name,
            role,
            project,
            created_at: now,
            created_by: permit.actor().into(),
            expires_at: expires_in.map(|after| now + after),
        }
    }

    /// Records a token by its digest, with the answer to repeat.
    pub async fn give_out(
        &self,
        grant: Grant,
        digest: Digest,
        permit: &Permit,
        answer: Option<Idempotency>,
    ) -> Result<(), OperatorError> {
        if grant.name.as_str() == LOCAL {
            return Err(OperatorError::NameReserved);
        }
        if self.issued(<[Issued]>::len) >= MOST_TOKENS {
            return Err(OperatorError::TooMany);
        }
        let detail = json!({ "role": grant.role, "project": grant.project, "expires_at": grant.expires_at });
        let told = Told { answer, ..self.told(permit, "token.create", grant.name.as_str(), detail) };
        if !self.store().put_token(digest, &grant, told).await? {
            return Err(OperatorError::NameTaken(grant.name));
        }
        Ok(self.reload_tokens().await?)
    }

    /// When this returns, the token opens nothing any more.
    pub async fn take_back(
        &self,
        name: &TokenName,
        permit: &Permit,
        answer: Option<Idempotency>,
    ) -> Result<(), OperatorError> {
        let told = Told { answer, ..self.told(permit, "token.revoke", name.as_str(), json!({})) };
        if !self.store().revoke_token(name, told).await? {
            return Err(OperatorError::NoToken(name.clone()));
        }
        Ok(self.reload_tokens().await?)
    }

    async fn reload_tokens(&self) -> Result<(), StoreError> {
        let issued = self.store().tokens().await?;
        *self.0.issued.write().unwrap_or_else(PoisonError::into_inner) = issued;
        Ok(())
    }
}
