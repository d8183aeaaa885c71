//! The account at a CA: made once, kept sealed in the store.

use std::{sync::Arc, time::Duration};

use gantry_store::{Holder, Lease, Store};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::{
    Authority,
    attempt::Failure,
    client::{Client, Made, Manners},
};
use crate::Seal;

/// How often a process that waits for another one's account looks.
const LOOK: Duration = Duration::from_millis(250);

/// How old an account must be to be given up because its CA does not know it: one that knows none is not asked to
/// make one after another.
const AGE_MIN_MS: i64 = 3_600_000;

/// An account, and what its CA has said.
pub(crate) struct At {
    pub(crate) account: Account,
    pub(crate) manners: Arc<Manners>,
    pub(crate) made: Made,
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
        let made = Made::default();
        let client = Client {
            transport: Arc::clone(&authority.transport),
            manners: Arc::clone(manners),
            made: made.clone(),
        };
        let account = match self.kept(authority, client.clone()).await? {
            Some(account) => account,
            None => self.make(authority, client, now_ms).await?,
        };
        Ok(At { account, manners: Arc::clone(manners), made })
    }

    /// Gives an account up that its CA does not know, so that another one is made; says whether there is now
    /// another one to come or there already, made since `began_ms`.
    pub(crate) async fn give_up(
        &self,
        authority: &Authority,
        began_ms: i64,
        now_ms: i64,
    ) -> Result<bool, Failure> {
        let lease = self.lease(authority).await?;
        let given_up = self.give_up_under(&lease, authority, began_ms, now_ms).await;
        self.store.return_lease(&lease).await?;
        given_up
    }

    async fn give_up_under(
        &self,
        lease: &Lease,
        authority: &Authority,
        began_ms: i64,
        now_ms: i64,
    ) -> Result<bool, Failure> {
        let directory = &authority.directory;
        let Some((_, made_at_ms)) = self.store.acme_account(directory).await? else {
            return Ok(true);
        };
        if made_at_ms >= began_ms {
            return Ok(true);
        }
        if now_ms - made_at_ms < AGE_MIN_MS {
            return Ok(false);
        }
        self.store.forget_acme_account(directory, lease).await?;
        tracing::warn!(directory, "a CA has lost our account there; another one is made");
        Ok(true)
    }

    async fn kept(
        &self,
        authority: &Authority,
        client: Client,
    ) -> Result<Option<Account>, Failure> {
        let Some((sealed, _)) = self.store.acme_account(&authority.directory).await? else {
            return Ok(None);
        };
        let text = self.seal.open(&context(authority), &sealed)?;
        let credentials: AccountCredentials = serde_json::from_slice(&text)
            .map_err(|error| Failure::own(format!("the account in the store: {error}")))?;
        let manners = Arc::clone(&client.manners);
        let builder = Account::builder_with_http(Box::new(client));
        let account = builder.from_credentials(credentials).await;
        account.map(Some).map_err(|error| Failure::of(&error, &manners))
    }

    async fn make(
        &self,
        authority: &Authority,
        client: Client,
        now_ms: i64,
    ) -> Result<Account, Failure> {
        let lease = self.lease(authority).await?;
        // Somebody may have made it meanwhile.
        let made = match self.kept(authority, client.clone()).await {
            Ok(Some(account)) => Ok(account),
            Ok(None) => self.make_under(&lease, authority, client, now_ms).await,
            Err(failure) => Err(failure),
        };
        self.store.return_lease(&lease).await?;
        made
    }

    /// Waits for the lease of an account.
    async fn lease(&self, authority: &Authority) -> Result<Lease, Failure> {
        let name = context(authority);
        loop {
            if let Some(lease) = self.store.take_lease(&name, self.holder, self.lease).await? {
                return Ok(lease);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make_under(
        &self,
        lease: &Lease,
        authority: &Authority,
        client: Client,
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
        let manners = Arc::clone(&client.manners);
        let builder = Account::builder_with_http(Box::new(client));
        let made = builder.create(&new, authority.directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(|error| Failure::of(&error, &manners))?;
        let text =
            serde_json::to_vec(&credentials).map_err(|error| Failure::own(error.to_string()))?;
        let sealed = self.seal.seal(&context(authority), &text)?;
        self.store.put_acme_account(&authority.directory, &sealed, lease, now_ms).await?;
        tracing::info!(directory = authority.directory, "made an account at a CA");
        Ok(account)
    }
}

/// What the CA calls the account that is in the store, if there is one.
pub(crate) async fn uri(
    authority: &Authority,
    store: &Store,
    seal: &dyn Seal,
) -> Result<Option<String>, Failure> {
    let Some((sealed, _made_ms)) = store.acme_account(&authority.directory).await? else {
        return Ok(None);
    };
    let text = seal.open(&context(authority), &sealed)?;
    let credentials: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Failure::own(format!("the account in the store: {error}")))?;
    Ok(credentials.get("id").and_then(serde_json::Value::as_str).map(str::to_owned))
}

/// What the account's credentials are sealed for, and the name of its lease.
fn context(authority: &Authority) -> String {
    format!("acme account {}", authority.directory)
}
