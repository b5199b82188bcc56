//! What somebody may have meant who wrote a word that is none.

/// How alike two words are that one may be meant by the other (Jaro-Winkler, 1 is the same).
const ALIKE: f64 = 0.8;

/// The one of `known` that may be meant by `word`.
pub(super) fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.map(|known| (strsim::jaro_winkler(word, known), known)).filter(|(alike, _)| *alike > ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_what_it_is_most_like_if_it_is_like_anything() {
        let known = || ["mode", "move-newcomers", "evictions-per-minute"].into_iter();
        assert_eq!(meant("modes", known()), Some("mode"));
        assert_eq!(meant("evictions_per_minute", known()), Some("evictions-per-minute"));
        assert_eq!(meant("xyz", known()), None);
    }
}
