//! CAA records: whether a domain lets a CA issue (RFC 8659), for which account and in which way (RFC 8657).

use hickory_proto::rr::rdata::CAA;

/// Properties that say nothing about certificates of TLS, so that being critical changes nothing.
const OTHERS: [&str; 5] = ["iodef", "contactemail", "contactphone", "issuemail", "issuevmc"];

/// The records that count for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caa {
    /// Where they are: at the name, or above it.
    pub(crate) at: String,
    properties: Vec<Property>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Property {
    is_critical: bool,
    tag: String,
    value: String,
}

/// What is wanted of a CA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'w> {
    pub(crate) is_wildcard: bool,
    /// What the CA calls itself in these records.
    pub(crate) identities: &'w [String],
    /// Our account there.
    pub(crate) account: Option<&'w str>,
    /// The ways in which the name may be proved; one of them is enough.
    pub(crate) methods: &'w [&'static str],
}

impl Caa {
    pub(super) fn new(at: String, records: &[CAA]) -> Self {
        let property = |record: &CAA| Property {
            is_critical: record.issuer_critical,
            tag: record.tag.to_ascii_lowercase(),
            value: String::from_utf8_lossy(&record.value).trim().to_owned(),
        };
        Self { at, properties: records.iter().map(property).collect() }
    }

    /// Whom they let issue, as they say it.
    pub(crate) fn issuers(&self, is_wildcard: bool) -> Vec<&str> {
        self.relevant(is_wildcard).map(|property| property.value.as_str()).collect()
    }

    /// Why a CA that keeps to them will not issue; nothing if it may.
    pub(crate) fn refuses(&self, wish: &Wish<'_>) -> Option<String> {
        let is_unknown = |property: &&Property| {
            let tag = property.tag.as_str();
            property.is_critical && !OTHERS.contains(&tag) && !["issue", "issuewild"].contains(&tag)
        };
        if let Some(unknown) = self.properties.iter().find(is_unknown) {
            let (at, tag) = (&self.at, &unknown.tag);
            return Some(format!("the property {tag:?} at {at} is critical, and no CA knows it"));
        }
        let mut issuers = Vec::new();
        let mut nearly = Vec::new();
        for property in self.relevant(wish.is_wildcard) {
            let (issuer, parameters) = parse(&property.value);
            if !wish.identities.iter().any(|identity| identity.eq_ignore_ascii_case(issuer)) {
                issuers.push(if issuer.is_empty() { "nobody" } else { issuer });
                continue;
            }
            match objection(&parameters, wish) {
                None => return None,
                Some(why) => nearly.push(why),
            }
        }
        if !nearly.is_empty() {
            return Some(format!(
                "the CAA records at {} name this CA, but {}",
                self.at,
                nearly.join("; ")
            ));
        }
        (!issuers.is_empty()).then(|| {
            format!("the CAA records at {} let {} issue alone", self.at, issuers.join(", "))
        })
    }

    /// The properties that count: those for wildcards where there are any and one is wanted.
    fn relevant(&self, is_wildcard: bool) -> impl Iterator<Item = &Property> {
        let has_own = self.properties.iter().any(|property| property.tag == "issuewild");
        let tag = if is_wildcard && has_own { "issuewild" } else { "issue" };
        self.properties.iter().filter(move |property| property.tag == tag)
    }
}

/// Why what a property adds to the CA's name does not fit.
fn objection(parameters: &[(&str, &str)], wish: &Wish<'_>) -> Option<String> {
    for (tag, value) in parameters {
        if tag.eq_ignore_ascii_case("accounturi") && wish.account != Some(*value) {
            let ours = wish.account.map_or_else(
                || "there is none of ours yet".to_owned(),
                |account| format!("ours is {account}"),
            );
            return Some(format!("for the account {value} alone, and {ours}"));
        }
        if tag.eq_ignore_ascii_case("validationmethods") {
            let mut allowed = value.split(',').map(str::trim);
            if !allowed.any(|method| wish.methods.contains(&method)) {
                let ours = wish.methods.join(" or ");
                return Some(format!("for proofs by {value} alone, and ours is by {ours}"));
            }
        }
    }
    None
}

/// The name of the issuer, maybe empty, and what is added to it.
fn parse(value: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = value.split(';').map(str::trim);
    let issuer = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| {
        let (tag, value) = part.split_once('=')?;
        Some((tag.trim(), value.trim()))
    });
    (issuer, parameters.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caa(records: &[(&str, &str)]) -> Caa {
        let property = |(tag, value): &(&str, &str)| Property {
            is_critical: tag.ends_with('!'),
            tag: tag.trim_end_matches('!').to_owned(),
            value: (*value).to_owned(),
        };
        Caa { at: "example.test".to_owned(), properties: records.iter().map(property).collect() }
    }

    #[test]
    fn records_let_a_ca_issue_or_say_why_not() {
        type Records<'r> = &'r [(&'r str, &'r str)];
        let ours = "https://ca.test/acct/7";
        let of_ours = format!("ca.test; accounturi={ours}; validationmethods=dns-01");
        let rows: &[(Records<'_>, bool, Option<&str>)] = &[
            (&[("issue", "ca.test")], false, None),
            (&[("issue", "other.test"), ("issue", " CA.test ")], false, None),
            (&[("issue", "other.test")], false, Some("let other.test issue alone")),
            (&[("issue", ";")], false, Some("let nobody issue alone")),
            (&[("iodef", "mailto:a@example.test")], false, None), // restricts nothing
            (&[("issuewild", ";")], false, None),                 // about wildcards alone
            (&[("issuewild", ";"), ("issue", "ca.test")], true, Some("let nobody")),
            (&[("issuewild", "ca.test"), ("issue", ";")], true, None),
            (&[("issue", "other.test")], true, Some("let other.test")), // holds for wildcards, too
            (&[("issue", &of_ours)], false, None),
            (
                &[("issue", "ca.test; accounturi=https://ca.test/acct/8")],
                false,
                Some(
                    "for the account https://ca.test/acct/8 alone, and ours is https://ca.test/acct/7",
                ),
            ),
            (
                &[("issue", "ca.test;validationmethods=http-01,tls-alpn-01")],
                false,
                Some("for proofs by http-01,tls-alpn-01 alone, and ours is by dns-01"),
            ),
            (
                &[("tbs!", "x"), ("issue", "ca.test")],
                false,
                Some("\"tbs\" at example.test is critical"),
            ),
            (&[("iodef!", "mailto:a@example.test"), ("issue", "ca.test")], false, None),
        ];
        for (records, is_wildcard, want) in rows {
            let identities = ["ca.test".to_owned()];
            let (account, methods) = (Some(ours), &["dns-01"][..]);
            let wish =
                Wish { is_wildcard: *is_wildcard, identities: &identities, account, methods };
            let got = caa(records).refuses(&wish);
            let is_right = match (&got, want) {
                (None, None) => true,
                (Some(got), Some(want)) => got.contains(want),
                (None, Some(_)) | (Some(_), None) => false,
            };
            assert!(is_right, "{records:?} {is_wildcard}: {got:?}, wanted {want:?}");
        }
    }
}
