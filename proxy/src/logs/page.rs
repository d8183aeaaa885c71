//! The page of the service `logs`: the end of the log, as it grows.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};

/// The page. It asks for nothing but the stream beside it.
pub(super) const HTML: &str = include_str!("page.html");

/// What the page may do: run its one script, and ask its own host.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, script().as_bytes()));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
});

/// The text of its script.
fn script() -> &'static str {
    let inside = HTML.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    inside.map_or("", |(script, _)| script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_nothing_from_elsewhere() {
        assert!(script().contains("EventSource"));
        assert_eq!(HTML.matches("<script").count(), 1);
        for outside in ["http:", "https:", "src=", "href=", "innerHTML", "onclick"] {
            assert!(!HTML.contains(outside), "{outside}");
        }
    }
}
