//! Which form of an answer a client can read.

use http::HeaderValue;

/// What a client can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
    #[default]
    Text,
}

impl Form {
    /// Chooses by what the client is doing, then by what it accepts.
    pub(crate) fn choose(mode: Option<&HeaderValue>, accept: Option<&HeaderValue>) -> Self {
        match mode.map(HeaderValue::as_bytes) {
            Some(b"navigate" | b"nested-navigate") => return Self::Html,
            Some(b"cors" | b"same-origin" | b"websocket") => return Self::Json,
            Some(_) | None => {}
        }
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best = (Self::Text, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            let form = match kind {
                "text/html" | "application/xhtml+xml" => Self::Html,
                "text/plain" => Self::Text,
                kind if kind == "application/json" || kind.ends_with("+json") => Self::Json,
                _ => continue,
            };
            if quality > best.1 {
                best = (form, quality);
            }
        }
        best.0
    }
}

/// A quality such as `0.75` in thousandths; nonsense counts as nothing.
fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().chain(*b"000").take(3).try_fold(0_u32, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'))
    });
    match (whole, digits) {
        ("1", Some(_)) => 1000,
        ("0", Some(digits)) => digits,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_what_the_client_does_then_what_it_accepts() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (mode, accept, want) in [
            (Some("navigate"), "*/*", Form::Html),
            (Some("cors"), browser, Form::Json),
            (Some("no-cors"), "image/avif,*/*;q=0.8", Form::Text),
            (None, browser, Form::Html),
            (None, "*/*", Form::Text),
            (None, "", Form::Text),
            (None, "application/json", Form::Json),
            (None, "application/problem+json", Form::Json),
            (None, "text/html;q=0.5, application/json", Form::Json),
            (None, "text/html;q=0, application/json;q=0.1", Form::Json),
            (None, "text/plain, text/html;q=0.9", Form::Text),
        ] {
            let mode = mode.map(HeaderValue::from_static);
            let accept = HeaderValue::from_static(accept);
            assert_eq!(Form::choose(mode.as_ref(), Some(&accept)), want, "{mode:?} {accept:?}");
        }
    }
}
