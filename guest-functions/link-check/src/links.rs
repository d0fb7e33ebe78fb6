//! Finds the links that are to be checked.
//!
//! **Invariant:** each address once, in the order in which it stands in the input.

use serde_json::Value;

/// What may stand around a link in HTML, Markdown and prose, and not inside it.
const ENDS: [char; 11] = ['"', '\'', '<', '>', '(', ')', '[', ']', '{', '}', '`'];
/// What ends a sentence rather than a link.
const PUNCTUATION: [char; 6] = ['.', ',', ';', ':', '!', '?'];

/// The links of `{"urls": […]}`, `{"text": "…"}` or a text.
///
/// # Errors
/// What is missing, in a sentence.
pub(crate) fn of_input(input: &Value) -> Result<Vec<String>, &'static str> {
    if let Some(urls) = input.get("urls") {
        let urls = urls.as_array().and_then(|urls| {
            let texts = urls.iter().map(|url| url.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        return urls
            .map(once_each)
            .ok_or("'urls' has to be a list of texts");
    }
    let text = input.as_str().or_else(|| input.get("text")?.as_str());
    let text = text.ok_or("send {\"urls\": […]}, {\"text\": \"…\"} or a text")?;
    Ok(of_text(text))
}

/// The absolute links in a text.
pub(crate) fn of_text(text: &str) -> Vec<String> {
    let pieces = text.split(|symbol: char| symbol.is_whitespace() || ENDS.contains(&symbol));
    let links = pieces.filter_map(|piece| {
        let begin = piece.find("http://").or_else(|| piece.find("https://"))?;
        let link = piece.get(begin..)?.trim_end_matches(PUNCTUATION);
        Some(link.replace("&amp;", "&"))
    });
    once_each(links.collect())
}

fn once_each(links: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for link in links {
        if !kept.contains(&link) {
            kept.push(link);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_html_markdown_and_prose() {
        let text = "See [the wheel](https://a.example/wheel?x=1&amp;y=2). <a href='http://b/'>b</a>, \
                    or http://c:8080/d! Again: http://b/; ftp://no, relative/no.";
        assert_eq!(
            of_text(text),
            [
                "https://a.example/wheel?x=1&y=2",
                "http://b/",
                "http://c:8080/d"
            ]
        );
    }

    #[test]
    fn an_input_without_links_is_no_mistake_and_one_without_text_is() {
        assert!(of_input(&Value::from("nothing here")).unwrap().is_empty());
        assert!(of_input(&serde_json::json!({})).is_err());
        assert!(of_input(&serde_json::json!({"urls": "http://a"})).is_err());
        assert!(of_input(&serde_json::json!({"urls": [1]})).is_err());
    }
}
