//! One attempt at one certificate: from an order, new or left over, to a chain in the store.

use std::{collections::VecDeque, time::Duration};

use gantry_store::{CertificateRecord, Issued, Lease, OrderRecord, Use};
use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;

use super::{
    Authority,
    account::At,
    budget::{CUSTOMERS_HELD_MAX, Cost, LOOK_BACK, held, millis, renews},
    client::TransportError,
    failure::{Failure, Kind},
    plan::Life,
    shared::{Shared, random},
};
use crate::chain::Parsed;

/// The longest that a CA may take to come to a decision.
const DECISION_MAX: Duration = Duration::from_mins(10);
/// The first pause between two looks at an order, and the longest.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(8);
/// How long a CA may want to be left alone until an order there is given up for another CA at once.
const WAIT_MAX: time::Duration = time::Duration::hours(1);
/// How often a CA may be away or busy while an order there goes on, until that is given up for another CA.
const GIVEN_UP_AFTER: u64 = 2;

/// An attempt at the certificate of a record, under its lease.
pub(crate) struct Attempt<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) record: &'a CertificateRecord,
    pub(crate) lease: &'a Lease,
    /// When it began.
    pub(crate) began_ms: i64,
}

impl Attempt<'_> {
    /// Goes on with the order that there is, or places one at the first CA that takes it.
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let mut reasons = Vec::new();
        let mut not_before_ms = None;
        let mut tried = None;
        if let Some(order) = self.stored().await? {
            match self.left_over(order).await? {
                LeftOver::Done => return Ok(()),
                LeftOver::Nothing => {}
                LeftOver::Failed(directory, failure) => {
                    reasons.push(failure.text);
                    tried = Some(directory);
                }
            }
        }
        let untried = |it: &&Authority| tried.as_ref() != Some(&it.directory);
        let mut others: VecDeque<_> = self.shared.authorities.iter().filter(untried).collect();
        while let Some(authority) = others.pop_front() {
            match self.judged(authority, self.order(authority).await).await {
                Ok(()) => return Ok(()),
                Err(failure) if matches!(failure.kind, Kind::Lost | Kind::Repeat) => {
                    return Err(failure);
                }
                Err(mut failure) => {
                    let at = failure.not_before_ms.unwrap_or(0);
                    let is_kept_to =
                        self.is_kept_to(authority, &mut failure, others.make_contiguous()).await?;
                    reasons.push(failure.text);
                    if is_kept_to {
                        // It decides then, and is not given up for those that could not before.
                        not_before_ms = Some(at);
                        break;
                    }
                    not_before_ms = Some(not_before_ms.map_or(at, |least: i64| least.min(at)));
                    self.give_up().await?;
                }
            }
        }
        let not_before_ms = not_before_ms.filter(|at| *at > 0);
        Err(Failure { not_before_ms, ..Failure::refused(reasons.join("; ")) })
    }

    /// The order that is in the store. One that is damaged is tried again as after other failures: somebody may mend
    /// the store.
    async fn stored(&self) -> Result<Option<OrderRecord>, Failure> {
        let name = &self.record.name;
        match self.shared.store.acme_order(name).await {
            Err(error @ gantry_store::Error::Corrupt { .. }) => Err(Failure::own(format!(
                "the order in the store cannot be read: {error}; `gantry certs renew {name}` drops it and has \
                 another one placed"
            ))),
            other => Ok(other?),
        }
    }

    /// Whether an order is gone on with next time after such a failure, rather than given up for the next CA. What
    /// is wrong here is no reason to leave a CA; that it wants to be left alone for long is one, where another that
    /// was not tried yet can issue, which the failure says then.
    async fn is_kept_to(
        &self,
        authority: &Authority,
        failure: &mut Failure,
        others: &[&Authority],
    ) -> Result<bool, Failure> {
        let kind = failure.kind;
        if !matches!(kind, Kind::Interrupted | Kind::Here) {
            return Ok(false);
        }
        let placed = self.shared.store.acme_order(&self.record.name).await?;
        let Some(order) = placed.filter(|order| !order.is_over) else { return Ok(false) };
        let Some(url) = order.url else { return Ok(false) };
        if kind == Kind::Here || self.shared.authorities.len() == 1 {
            return Ok(true);
        }
        let now = self.shared.now_ms();
        let wanted = failure.not_before_ms.filter(|at| *at > now + millis(WAIT_MAX));
        if let Some(until_ms) = wanted
            && self.any_can(others).await?
        {
            // Whatever becomes of it elsewhere, this one is left alone with these names for so long.
            self.hold(&[self.cost(authority).of_names()], until_ms).await?;
            let directory = &authority.directory;
            let text = std::mem::take(&mut failure.text);
            failure.text = format!("{text}; the order at {directory} is given up for another CA");
            tracing::warn!(name = self.record.name, error = failure.text, "a CA wants too long");
            return Ok(false);
        }
        let interrupted = Cost::interrupted(&order.directory, &url);
        self.note(std::slice::from_ref(&interrupted)).await?;
        let uses = self.shared.store.acme_uses(&interrupted, now - millis(LOOK_BACK), now).await?;
        Ok(uses.0 <= GIVEN_UP_AFTER)
    }

    /// Whether one of these CAs may be asked now.
    async fn any_can(&self, others: &[&Authority]) -> Result<bool, Failure> {
        for authority in others.iter().copied() {
            if self.shared.is_busy(authority)? {
                continue;
            }
            match self.check_limits(authority).await {
                Ok(()) => return Ok(true),
                Err(failure) if failure.kind == Kind::Lost => return Err(failure),
                Err(_reached) => {}
            }
        }
        Ok(false)
    }

    /// What becomes of an order that an earlier attempt has left.
    async fn left_over(&self, mut order: OrderRecord) -> Result<LeftOver, Failure> {
        let authority = self.shared.authorities.iter().find(|it| it.directory == order.directory);
        let fits = !order.is_over && order.hostnames == self.record.hostnames;
        let (Some(authority), true) = (authority, fits) else {
            self.give_up().await?;
            return Ok(LeftOver::Nothing);
        };
        let resumed = match order.url.clone() {
            Some(url) => match self.check_held(authority).await {
                Ok(()) => self.resume(authority, &mut order, url).await,
                Err(failure) => Err(failure),
            },
            // The CA may not have heard of it.
            None => match self.check_limits(authority).await {
                Ok(()) => self.place(authority, &mut order).await,
                Err(failure) => Err(failure),
            },
        };
        match self.judged(authority, resumed).await {
            Ok(()) => Ok(LeftOver::Done),
            Err(failure) if matches!(failure.kind, Kind::Lost | Kind::Repeat) => Err(failure),
            Err(mut failure) => {
                let is_another = |it: &&Authority| it.directory != authority.directory;
                let others: Vec<_> = self.shared.authorities.iter().filter(is_another).collect();
                if self.is_kept_to(authority, &mut failure, &others).await? {
                    return Err(failure);
                }
                self.give_up().await?;
                Ok(LeftOver::Failed(authority.directory.clone(), failure))
            }
        }
    }

    /// What the work at a CA has come to. Where the CA has lost our account, another one is made and the work
    /// repeated: what was ordered by the old one is lost with it.
    async fn judged(
        &self,
        authority: &Authority,
        outcome: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let figures = &self.shared.figures;
        let Err(failure) = outcome else {
            figures.issued(&authority.directory);
            return Ok(());
        };
        if matches!(failure.kind, Kind::Lost | Kind::Repeat) {
            return Err(failure);
        }
        figures.failed(&authority.directory);
        if failure.kind != Kind::Stranger {
            return Err(failure);
        }
        if self.shared.replace_account(authority, self.began_ms).await? {
            self.give_up().await?;
            return Err(Failure { kind: Kind::Repeat, ..failure });
        }
        let young = "it was made less than an hour ago, so that no other is made yet";
        Err(Failure::refused(format!("{}; our account there is unknown: {young}", failure.text)))
    }

    /// Refuses an order that would go beyond a limit of the CA.
    async fn check_limits(&self, authority: &Authority) -> Result<(), Failure> {
        let (store, now) = (&self.shared.store, self.shared.now_ms());
        match self.cost(authority).check(&authority.limits, store, now).await? {
            None => Ok(()),
            Some(reached) => {
                Err(Failure { not_before_ms: Some(reached.until_ms), ..Failure::own(reached.text) })
            }
        }
    }

    /// Refuses to go on with an order that the CA wants to hear nothing of for a while.
    async fn check_held(&self, authority: &Authority) -> Result<(), Failure> {
        let (store, now) = (&self.shared.store, self.shared.now_ms());
        match self.cost(authority).check_held(store, now).await? {
            None => Ok(()),
            Some(reached) => Err(Failure {
                not_before_ms: Some(reached.until_ms),
                ..Failure::interrupted(reached.text)
            }),
        }
    }

    /// A new order.
    async fn order(&self, authority: &Authority) -> Result<(), Failure> {
        self.check_limits(authority).await?;
        // Names that cannot be proved are told before the CA is asked.
        self.shared.check_provable(&self.record.hostnames)?;
        let key = KeyPair::generate().map_err(|error| Failure::own(error.to_string()))?;
        // What an earlier order has published and could not take away is noted on.
        let earlier = self.shared.store.acme_order(&self.record.name).await?;
        let records = earlier.map(|order| order.records).unwrap_or_default();
        let mut order = OrderRecord {
            certificate: self.record.name.clone(),
            directory: authority.directory.clone(),
            hostnames: self.record.hostnames.clone(),
            url: None,
            key_sealed: self.shared.seal.seal(&self.key_context(), &key.serialize_der())?,
            records,
            is_over: false,
            created_at_ms: self.shared.now_ms(),
        };
        self.put(&order).await?;
        self.place(authority, &mut order).await
    }

    /// Tells the CA of an order that is in the store.
    async fn place(&self, authority: &Authority, record: &mut OrderRecord) -> Result<(), Failure> {
        let at = self.shared.at(authority).await?;
        let names: Vec<_> =
            record.hostnames.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let mut new = NewOrder::new(&names);
        if let Some(profile) = &authority.profile {
            at.check_profile(&authority.directory, profile)?;
            new = new.profile(profile);
        }
        let placed = match &self.replaced(authority) {
            Some(replaced) => {
                let placed = at.place(&with_replaced(new, replaced)).await;
                self.without_replaced(authority, &at, &names, placed).await
            }
            None => at.place(&new).await,
        };
        let order = match placed {
            Ok(order) => order,
            Err(error) => {
                let failure = Failure::of(&error, &at.manners);
                return Err(self.limited(authority, &at, failure).await?);
            }
        };
        record.url = Some(order.url().to_owned());
        self.put(record).await?;
        self.note(&self.cost(authority).placed()).await?;
        self.drive(authority, &at, order, record).await
    }

    /// Why the CA did not take an order or does not go on with it. One that has a limit for it wants to be left alone
    /// with these names and their domain, not with everything; but where it says so of several domains in a row, the
    /// limit is that of the account, and orders of customers wait for a while.
    async fn limited(
        &self,
        authority: &Authority,
        at: &At,
        failure: Failure,
    ) -> Result<Failure, Failure> {
        let Some(until) = at.heard.take_limited() else { return Ok(failure) };
        let until_ms = ms(until);
        let cost = self.cost(authority);
        self.hold(&cost.limited(), until_ms).await?;
        if at.manners.is_limited_all_over(cost.domains()) {
            let until_ms = until_ms.min(self.shared.now_ms() + millis(CUSTOMERS_HELD_MAX));
            self.hold(&[cost.of_customers()], until_ms).await?;
        }
        Ok(Failure { not_before_ms: Some(until_ms), kind: Kind::Interrupted, ..failure })
    }

    /// Notes that a CA wants to be left alone with these; what it has said of one before holds on if that is longer.
    async fn hold(&self, uses: &[Use], until_ms: i64) -> Result<(), Failure> {
        let (store, now) = (&self.shared.store, self.shared.now_ms());
        for one in uses {
            if held(store, one, now).await?.is_none_or(|already| already < until_ms) {
                store.hold_acme_uses(std::slice::from_ref(one), until_ms).await?;
            }
        }
        Ok(())
    }

    /// Mends what a CA says to an order that replaces a certificate: that this was replaced already or is not
    /// known is no reason to have none, and a CA that takes the order but does not repeat what is replaced
    /// (RFC 9773, section 5), which the library refuses, is not asked for a second one.
    async fn without_replaced(
        &self,
        authority: &Authority,
        at: &At,
        names: &[Identifier],
        placed: Result<Order, Error>,
    ) -> Result<Order, Error> {
        let Err(error) = &placed else { return placed };
        if let Some(url) = at.heard.take_made() {
            return at.resume(url).await;
        }
        let is_refused = Failure::of(error, &at.manners).kind == Kind::Refused;
        let is_disliked = matches!(error, Error::Other(error) if error.downcast_ref::<TransportError>().is_none());
        if !(is_refused || is_disliked) || at.manners.busy_until().is_some() {
            return placed;
        }
        let mut plain = NewOrder::new(names);
        if let Some(profile) = &authority.profile {
            plain = plain.profile(profile);
        }
        at.place(&plain).await
    }

    async fn resume(
        &self,
        authority: &Authority,
        record: &mut OrderRecord,
        url: String,
    ) -> Result<(), Failure> {
        let at = self.shared.at(authority).await?;
        match at.resume(url).await {
            Ok(order) => self.drive(authority, &at, order, record).await,
            Err(error) => {
                let failure = Failure::of(&error, &at.manners);
                Err(self.limited(authority, &at, failure).await?)
            }
        }
    }

    /// Brings an order from whatever state it is in to its end.
    async fn drive(
        &self,
        authority: &Authority,
        at: &At,
        order: Order,
        record: &mut OrderRecord,
    ) -> Result<(), Failure> {
        match self.step(authority, at, order, record).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.limited(authority, at, failure).await?),
        }
    }

    async fn step(
        &self,
        authority: &Authority,
        at: &At,
        mut order: Order,
        record: &mut OrderRecord,
    ) -> Result<(), Failure> {
        let began = tokio::time::Instant::now();
        let mut look = LOOK;
        let mut is_told = false;
        loop {
            let failed = |error| Failure::of(&error, &at.manners);
            let before = order.state().status;
            match before {
                OrderStatus::Pending if is_told => {}
                OrderStatus::Pending => {
                    self.prove(authority, at, &mut order, record).await?;
                    is_told = true;
                }
                OrderStatus::Ready => {
                    let csr = self.csr(record)?;
                    order.finalize_csr(&csr).await.map_err(failed)?;
                }
                OrderStatus::Processing => {}
                OrderStatus::Valid => {
                    let chain = order.certificate().await.map_err(failed)?;
                    let chain =
                        chain.ok_or_else(|| Failure::interrupted("the CA gave no certificate"))?;
                    at.manners.has_issued();
                    return self.keep(authority, &chain, record).await;
                }
                OrderStatus::Invalid => {
                    let why = self.reason(authority, at, order).await;
                    // Over it is all the same, whatever the CA says to questions about it.
                    at.heard.forget_limit();
                    return Err(why);
                }
            }
            if order.state().status != before {
                look = LOOK;
                continue;
            }
            if began.elapsed() > DECISION_MAX {
                return Err(Failure::interrupted("the CA comes to no decision"));
            }
            let pause = at.heard.take_pause().unwrap_or(look);
            look = (look * 2).min(LOOK_MAX);
            if pause > DECISION_MAX {
                let until_ms = ms((self.shared.clock)() + pause);
                let why = "the CA comes to no decision, and has said when to ask for it";
                return Err(Failure { not_before_ms: Some(until_ms), ..Failure::interrupted(why) });
            }
            tokio::time::sleep(pause).await;
            order.refresh().await.map_err(failed)?;
        }
    }

    /// Why an order is invalid: what the CA says of each name.
    async fn reason(&self, authority: &Authority, at: &At, mut order: Order) -> Failure {
        let mut reasons = Vec::new();
        let mut failed_names = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else { continue };
            if state.status != AuthorizationStatus::Invalid {
                continue;
            }
            let error = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            let why = error.and_then(|error| error.detail.clone()).unwrap_or_default();
            reasons.push(format!("{name}: {why}"));
            failed_names.push(name);
        }
        if let Some(error) = &order.state().error {
            reasons.push(error.to_string());
        }
        for name in failed_names {
            if let Err(error) = self.note(&self.cost(authority).failed(&name)).await {
                tracing::warn!(error = error.text, "a failed proof is not counted");
            }
        }
        let busy = at.manners.busy_until().map(ms);
        Failure {
            not_before_ms: busy,
            ..Failure::refused(format!("{} refuses: {}", authority.directory, reasons.join("; ")))
        }
    }

    fn csr(&self, record: &OrderRecord) -> Result<Vec<u8>, Failure> {
        let wrong = |error: rcgen::Error| Failure::refused(format!("the order's key: {error}"));
        let key = KeyPair::try_from(self.key(record)?.as_slice()).map_err(wrong)?;
        let mut request = CertificateParams::new(record.hostnames.clone()).map_err(wrong)?;
        request.distinguished_name = DistinguishedName::new();
        Ok(request.serialize_request(&key).map_err(wrong)?.der().to_vec())
    }

    /// The key of an order; without it the order is worth nothing.
    fn key(&self, record: &OrderRecord) -> Result<Vec<u8>, Failure> {
        let opened = self.shared.seal.open(&self.key_context(), &record.key_sealed);
        opened.map_err(|error| Failure::refused(format!("the order's key: {error}")))
    }

    /// Puts what the CA has issued into the store, once it is what was ordered, and shows it.
    async fn keep(
        &self,
        authority: &Authority,
        chain: &str,
        record: &mut OrderRecord,
    ) -> Result<(), Failure> {
        let key = self.key(record)?;
        let parsed = Parsed::new(chain.as_bytes(), &key)
            .map_err(|error| Failure::refused(format!("what the CA has issued: {error}")))?;
        let missing: Vec<_> =
            record.hostnames.iter().filter(|name| !parsed.names.contains(name)).cloned().collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(Failure::refused(format!("the CA's certificate is not for {missing}")));
        }
        let life = Life { begin: parsed.not_before, end: parsed.not_after };
        let issued = Issued {
            chain: chain.to_owned(),
            key_sealed: record.key_sealed.clone(),
            serial: parsed.serial.clone(),
            directory: authority.directory.clone(),
            not_before_ms: ms(parsed.not_before),
            not_after_ms: ms(parsed.not_after),
        };
        let due = ms(life.renewal(random()));
        let (name, now) = (&self.record.name, self.shared.now_ms());
        let ordered = (name.as_str(), record.hostnames.as_slice());
        self.shared.store.put_certificate(ordered, issued, due, self.lease, now).await?;
        self.note(&self.cost(authority).issued()).await?;
        tracing::info!(
            name, serial = parsed.serial, not_after = %parsed.not_after, "a certificate has been issued"
        );
        self.shared.show(name, &parsed.serial).await;
        record.is_over = true;
        if let Err(failure) = self.clean(record.clone()).await {
            // The certificate is there; the order stays as a note of what is left to be removed.
            tracing::warn!(name, error = failure.text, "records of an order stay for now");
        }
        Ok(())
    }

    /// Removes an order and all that it has published.
    pub(crate) async fn clean(&self, order: OrderRecord) -> Result<(), Failure> {
        self.shared.withdraw(&order, self.lease).await?;
        self.shared.store.remove_acme_order(&order.certificate, self.lease).await?;
        Ok(())
    }

    /// Drops the order that is in the store, if any; what it has published may stay noted.
    async fn give_up(&self) -> Result<(), Failure> {
        let Some(mut order) = self.shared.store.acme_order(&self.record.name).await? else {
            return Ok(());
        };
        order.is_over = true;
        self.put(&order).await?;
        if let Err(failure) = self.clean(order).await {
            if failure.kind == Kind::Lost {
                return Err(failure);
            }
            tracing::warn!(name = self.record.name, error = failure.text, "records stay for now");
        }
        Ok(())
    }

    pub(crate) async fn put(&self, order: &OrderRecord) -> Result<(), Failure> {
        Ok(self.shared.store.put_acme_order(order, self.lease).await?)
    }

    async fn note(&self, uses: &[Use]) -> Result<(), Failure> {
        let now = self.shared.now_ms();
        Ok(self.shared.store.note_acme_uses(uses, now - millis(LOOK_BACK), now).await?)
    }

    fn cost<'c>(&'c self, authority: &'c Authority) -> Cost<'c> {
        Cost {
            directory: &authority.directory,
            hostnames: &self.record.hostnames,
            is_renewal: renews(self.record, &authority.directory),
            is_own: self.record.hostnames.iter().all(|name| self.shared.is_own(name)),
        }
    }

    /// The certificate that the order renews, if it is of the same CA.
    fn replaced(&self, authority: &Authority) -> Option<CertificateIdentifier<'static>> {
        let issued = self.record.issued.as_ref();
        let issued = issued.filter(|it| it.directory == authority.directory)?;
        identifier(&issued.chain)
    }

    fn key_context(&self) -> String {
        key_context(&self.record.name)
    }
}

enum LeftOver {
    Done,
    Nothing,
    Failed(String, Failure),
}

fn with_replaced<'n>(
    new: NewOrder<'n>,
    replaced: &'n CertificateIdentifier<'static>,
) -> NewOrder<'n> {
    new.replaces(replaced.clone())
}

/// What a CA calls a certificate when it is asked about its renewal (RFC 9773, section 4.1).
pub(crate) fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    Some(CertificateIdentifier::try_from(&leaf).ok()?.into_owned())
}

/// What the key of a certificate, and of the order for it, is sealed for.
pub(crate) fn key_context(name: &str) -> String {
    format!("key of certificate {name}")
}

pub(crate) fn ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
