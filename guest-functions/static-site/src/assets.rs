//! The files of the site, and the addresses under which they are found.
//!
//! **Invariant:** every file of `site/` stands in the table; nothing else can be reached.

/// A file.
pub(crate) struct Asset {
    path: &'static str,
    /// Its media type.
    pub(crate) content_type: &'static str,
    /// Its contents; in a page, `{base}` stands for where the site is mounted.
    pub(crate) bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";

/// What is shown for every other address.
pub(crate) static NOT_FOUND: Asset = Asset {
    path: "/404",
    content_type: HTML,
    bytes: include_bytes!("../site/404.html"),
};

static ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        content_type: HTML,
        bytes: include_bytes!("../site/index.html"),
    },
    Asset {
        path: "/parts",
        content_type: HTML,
        bytes: include_bytes!("../site/parts.html"),
    },
    Asset {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../site/style.css"),
    },
    Asset {
        path: "/wheel.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("../site/wheel.svg"),
    },
];

/// The file under a path. Pages are found with `.html` too, and the first one as `index.html`.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    let path = path.strip_suffix(".html").unwrap_or(path);
    let path = if path == "/index" { "/" } else { path };
    ASSETS.iter().find(|asset| asset.path == path)
}
