//! The addresses that a token may be used from.

use std::net::IpAddr;

use gantry_model::FieldError;
use ipnet::IpNet;

/// The most entries of a list.
const ADDRESSES_MAX: usize = 64;

/// Checks every entry and writes networks in their canonical form; `*` among them means any.
pub(super) fn parse_addresses(list: &[String]) -> Result<Vec<String>, FieldError> {
    if list.len() > ADDRESSES_MAX {
        return Err(FieldError::new("ip_whitelist", "must hold at most 64 entries"));
    }
    let mut parsed = Vec::new();
    for (at, text) in list.iter().map(|text| text.trim()).enumerate() {
        if text == "*" {
            return Ok(Vec::new());
        }
        let address = text.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
        let entry = address.or_else(|_| text.parse().map(|net: IpNet| net.trunc().to_string()));
        parsed.push(entry.map_err(|_why| {
            FieldError::new(
                format!("ip_whitelist[{at}]"),
                "must be an IP address, a network such as 192.0.2.0/24, or *",
            )
        })?);
    }
    Ok(parsed)
}

/// Whether the list `new` lets in an address that `own` does not; an empty list lets in all.
pub(super) fn addresses_wider(own: &[String], new: &[String]) -> bool {
    let network = |entry: &String| {
        entry.parse::<IpAddr>().map(IpNet::from).or_else(|_| entry.parse::<IpNet>()).ok()
    };
    let own: Vec<IpNet> = own.iter().filter_map(network).collect();
    let within =
        |entry: &String| network(entry).is_some_and(|net| own.iter().any(|own| own.contains(&net)));
    !own.is_empty() && (new.is_empty() || !new.iter().all(within))
}

/// A client whose address is not known is on no list.
pub(super) fn allows_address(list: &[String], client: Option<IpAddr>) -> bool {
    if list.is_empty() {
        return true;
    }
    let Some(client) = client.map(|client| client.to_canonical()) else { return false };
    list.iter().any(|entry| match entry.parse::<IpAddr>() {
        Ok(address) => address.to_canonical() == client,
        Err(_) => entry.parse::<IpNet>().is_ok_and(|net| net.contains(&client)),
    })
}
