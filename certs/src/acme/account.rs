//! The account at a CA: made once, kept sealed in the store.

use std::{sync::Arc, time::Duration};

use gantry_store::{Holder, Store};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::{
    Authority,
    attempt::Failure,
    client::{Client, Manners},
};
use crate::Seal;

/// How often a process that waits for another one's account looks.
const LOOK: Duration = Duration::from_millis(250);

/// An account, and what its CA has said about when to come again.
pub(crate) struct At {
    pub(crate) account: Account,
    pub(crate) manners: Arc<Manners>,
}

/// What accounts are made and kept by.
pub(crate) struct Accounts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) seal: &'a dyn Seal,
    pub(crate) holder: Holder,
    /// How long the making of an account is left to one process.
    pub(crate) lease: Duration,
}

impl Accounts<'_> {
    /// The account at a CA; makes one if there is none. Asks the CA for its directory.
    pub(crate) async fn at(
        &self,
        authority: &Authority,
        manners: &Arc<Manners>,
        now_ms: i64,
    ) -> Result<At, Failure> {
        let account = match self.kept(authority, manners).await? {
            Some(account) => account,
            None => self.make(authority, manners, now_ms).await?,
        };
        Ok(At { account, manners: Arc::clone(manners) })
    }

    async fn kept(
        &self,
        authority: &Authority,
        manners: &Arc<Manners>,
    ) -> Result<Option<Account>, Failure> {
        let Some(sealed) = self.store.acme_account(&authority.directory).await? else {
            return Ok(None);
        };
        let text = self.seal.open(&context(authority), &sealed)?;
        let credentials: AccountCredentials = serde_json::from_slice(&text)
            .map_err(|error| Failure::own(format!("the account in the store: {error}")))?;
        let builder = Account::builder_with_http(Box::new(client(authority, manners)));
        let account = builder.from_credentials(credentials).await;
        account.map(Some).map_err(|error| Failure::of(&error, manners))
    }

    async fn make(
        &self,
        authority: &Authority,
        manners: &Arc<Manners>,
        now_ms: i64,
    ) -> Result<Account, Failure> {
        let name = format!("acme account {}", authority.directory);
        let lease = loop {
            if let Some(lease) = self.store.take_lease(&name, self.holder, self.lease).await? {
                break lease;
            }
            tokio::time::sleep(LOOK).await;
        };
        // Somebody may have made it meanwhile.
        let made = match self.kept(authority, manners).await {
            Ok(Some(account)) => Ok(account),
            Ok(None) => self.make_under_lease(authority, manners, now_ms).await,
            Err(failure) => Err(failure),
        };
        self.store.return_lease(&lease).await?;
        made
    }

    async fn make_under_lease(
        &self,
        authority: &Authority,
        manners: &Arc<Manners>,
        now_ms: i64,
    ) -> Result<Account, Failure> {
        let contact: Vec<&str> = authority.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = authority.external_account.as_ref();
        let external = external.map(|it| ExternalAccountKey::new(it.key_id.clone(), &it.key));
        let builder = Account::builder_with_http(Box::new(client(authority, manners)));
        let made = builder.create(&new, authority.directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(|error| Failure::of(&error, manners))?;
        let text =
            serde_json::to_vec(&credentials).map_err(|error| Failure::own(error.to_string()))?;
        let sealed = self.seal.seal(&context(authority), &text)?;
        self.store.put_acme_account(&authority.directory, &sealed, now_ms).await?;
        tracing::info!(directory = authority.directory, "made an account at a CA");
        Ok(account)
    }
}

fn client(authority: &Authority, manners: &Arc<Manners>) -> Client {
    Client { transport: Arc::clone(&authority.transport), manners: Arc::clone(manners) }
}

fn context(authority: &Authority) -> String {
    format!("acme account {}", authority.directory)
}
