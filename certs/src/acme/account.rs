//! The account at a CA: made once, kept sealed in the store.

use std::{sync::Arc, time::Duration};

use gantry_store::{Holder, Lease, Store};
use instant_acme::{
    Account, AccountCredentials, Error, ExternalAccountKey, Key, NewAccount, NewOrder, Order,
};
use rustls_pki_types::PrivateKeyDer;

use super::{
    Authority,
    client::{Client, Heard, Manners},
    failure::{Failure, type_of},
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
    pub(crate) heard: Heard,
}

impl At {
    /// Tells the CA of a new order. From now on all that it is told is about that.
    pub(crate) async fn place(&self, order: &NewOrder<'_>) -> Result<Order, Error> {
        self.heard.begin_order();
        self.account.new_order(order).await
    }

    /// Whether the CA has the profile that is wanted of it.
    pub(crate) fn check_profile(&self, directory: &str, wanted: &str) -> Result<(), Failure> {
        if self.account.profiles().any(|profile| profile.name == wanted) {
            return Ok(());
        }
        let mut known: Vec<_> = self.account.profiles().map(|profile| profile.name).collect();
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Failure::refused(format!("{directory} has no profile {wanted:?}; it has {known}")))
    }

    /// Asks the CA for an order that it has. From now on all that it is told is about that.
    pub(crate) async fn resume(&self, url: String) -> Result<Order, Error> {
        self.heard.begin_order();
        self.account.order(url).await
    }
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
        let heard = Heard::default();
        let client = Client {
            transport: Arc::clone(&authority.transport),
            manners: Arc::clone(manners),
            heard: heard.clone(),
        };
        let account = match self.kept(authority, client.clone()).await? {
            Some(account) => account,
            None => self.make(authority, client, now_ms).await?,
        };
        Ok(At { account, manners: Arc::clone(manners), heard })
    }

    /// Replaces an account that its CA does not know; says whether there is another one now, made since
    /// `began_ms`.
    pub(crate) async fn replace(
        &self,
        authority: &Authority,
        manners: &Arc<Manners>,
        (began_ms, now_ms): (i64, i64),
    ) -> Result<bool, Failure> {
        let lease = self.lease(authority).await?;
        let replaced = self.replace_under(&lease, authority, manners, (began_ms, now_ms)).await;
        self.store.return_lease(&lease).await?;
        replaced
    }

    async fn replace_under(
        &self,
        lease: &Lease,
        authority: &Authority,
        manners: &Arc<Manners>,
        (began_ms, now_ms): (i64, i64),
    ) -> Result<bool, Failure> {
        let directory = &authority.directory;
        let Some((sealed, made_at_ms)) = self.store.acme_account(directory).await? else {
            return Ok(true);
        };
        if made_at_ms >= began_ms {
            return Ok(true);
        }
        if now_ms - made_at_ms < AGE_MIN_MS {
            return Ok(false);
        }
        let client = Client {
            transport: Arc::clone(&authority.transport),
            manners: Arc::clone(manners),
            heard: Heard::default(),
        };
        // It may have been mistaken, and another account may not be allowed what this one is.
        let credentials = self.opened(authority, &sealed)?;
        if let Some(credentials) = known(authority, client.clone(), &credentials).await? {
            tracing::warn!(directory, "a CA did not know our account there, and does again");
            self.keep(lease, authority, &credentials, now_ms).await?;
        } else {
            tracing::warn!(directory, "a CA has lost our account there; another one is made");
            self.make_under(lease, authority, client, now_ms).await?;
        }
        Ok(true)
    }

    fn opened(&self, authority: &Authority, sealed: &[u8]) -> Result<AccountCredentials, Failure> {
        let text = self.seal.open(&context(authority), sealed)?;
        serde_json::from_slice(&text)
            .map_err(|error| Failure::own(format!("the account in the store: {error}")))
    }

    async fn kept(
        &self,
        authority: &Authority,
        client: Client,
    ) -> Result<Option<Account>, Failure> {
        let Some((sealed, _)) = self.store.acme_account(&authority.directory).await? else {
            return Ok(None);
        };
        let credentials = self.opened(authority, &sealed)?;
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
        self.keep(lease, authority, &credentials, now_ms).await?;
        tracing::info!(directory = authority.directory, "made an account at a CA");
        Ok(account)
    }

    /// Keeps an account in the store, in the place of one that is there.
    async fn keep(
        &self,
        lease: &Lease,
        authority: &Authority,
        credentials: &AccountCredentials,
        now_ms: i64,
    ) -> Result<(), Failure> {
        let text =
            serde_json::to_vec(credentials).map_err(|error| Failure::own(error.to_string()))?;
        let sealed = self.seal.seal(&context(authority), &text)?;
        Ok(self.store.put_acme_account(&authority.directory, &sealed, lease, now_ms).await?)
    }
}

/// The account that a CA has for the key of this one, if it has any.
async fn known(
    authority: &Authority,
    client: Client,
    credentials: &AccountCredentials,
) -> Result<Option<AccountCredentials>, Failure> {
    let manners = Arc::clone(&client.manners);
    let der = credentials.private_key().clone_key();
    let found = async {
        let key = Key::from_pkcs8_der(der.clone_key())?;
        let builder = Account::builder_with_http(Box::new(client));
        builder.from_key((key, PrivateKeyDer::Pkcs8(der)), authority.directory.clone()).await
    };
    match found.await {
        Ok((_account, credentials)) => Ok(Some(credentials)),
        Err(Error::Api(problem)) if type_of(&problem) == Some("accountDoesNotExist") => Ok(None),
        Err(error) => Err(Failure::of(&error, &manners)),
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
