//! MQTT topic names and filters (MQTT 5.0, section 4.7).

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// A valid topic name: no wildcard, no NUL, not empty, within the limits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// A valid topic filter: `+` and `#` only as whole levels, `#` only last.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

/// The name of a shared subscription's group: not empty, without `/`, `+` and `#` (MQTT 5.0, 4.8.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(Arc<str>);

/// What a SUBSCRIBE or UNSUBSCRIBE names: a filter, or a share of one as `$share/NAME/FILTER`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscribed {
    /// The group that shares it.
    pub share: Option<ShareName>,
    /// What is subscribed to.
    pub filter: TopicFilter,
}

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The text has no character.
    #[error("a topic must not be empty")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`TOPIC_LEVELS_MAX`] levels.
    #[error("a topic has at most {TOPIC_LEVELS_MAX} levels")]
    TooDeep,
    /// NUL, another control character or a Unicode non-character.
    #[error("a topic must not contain control characters")]
    ControlCharacter,
    /// `+` or `#` in a topic name.
    #[error("a topic name must not contain the wildcards `+` and `#`")]
    WildcardInName,
    /// `a+/b`, `#/a` and the like.
    #[error("`+` must fill a whole level, and `#` the last one")]
    MisplacedWildcard,
    /// `$share/` without a name and a filter behind it.
    #[error("a shared subscription is written `$share/NAME/FILTER`, and its name has no wildcard")]
    BadShare,
    /// Not UTF-8.
    #[error("a topic must be UTF-8")]
    NotUtf8,
}

impl TopicName {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text.into()))
    }

    /// Checks bytes as they come in a packet.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, TopicError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| TopicError::NotUtf8)?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TopicFilter {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = level.len() == 1;
            let last = levels.peek().is_none();
            if level.contains('+') && !alone || level.contains('#') && !(alone && last) {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the filter takes `name`. A filter that starts with a wildcard takes no name that
    /// starts with `$` (section 4.7.2); `a/#` takes `a` itself (section 4.7.1.2).
    pub fn matches(&self, name: &TopicName) -> bool {
        let (filter, name) = (self.as_str(), name.as_str());
        if name.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut names = name.split('/');
        let mut filters = filter.split('/');
        loop {
            match (filters.next(), names.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(f), Some(n)) if f == n => {}
                _ => return false,
            }
        }
    }
}

impl ShareName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Subscribed {
    /// Checks `text`. The bounds of a filter hold for what stands behind the group's name.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let Some(shared) = text.strip_prefix(SHARE) else {
            return Ok(Self {
                share: None,
                filter: TopicFilter::parse(text)?,
            });
        };
        let (name, filter) = shared.split_once('/').ok_or(TopicError::BadShare)?;
        if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
            return Err(TopicError::BadShare);
        }
        check_common(name)?;
        Ok(Self {
            share: Some(ShareName(name.into())),
            filter: TopicFilter::parse(filter)?,
        })
    }
}

impl Subscribed {
    /// The whole text as a filter, `$share/…` included: what policies and events are asked about.
    pub fn as_filter(&self) -> TopicFilter {
        match self.share {
            Some(_) => TopicFilter(self.to_string().into()),
            None => self.filter.clone(),
        }
    }
}

impl fmt::Display for Subscribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "{SHARE}{}/{}", share.0, self.filter),
            None => fmt::Display::fmt(&self.filter, f),
        }
    }
}

impl fmt::Debug for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a shared subscription begins with.
const SHARE: &str = "$share/";

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if text.split('/').count() > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooDeep);
    }
    if text
        .chars()
        .any(|c| c.is_control() || matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF))
    {
        return Err(TopicError::ControlCharacter);
    }
    Ok(())
}

/// A name is ordered as its text is.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, name: &str) -> bool {
        TopicFilter::parse(filter)
            .unwrap()
            .matches(&TopicName::parse(name).unwrap())
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (filter, name) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("+", "finance"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("sport/+", "sport/"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ] {
            assert!(matches(filter, name), "{filter} takes {name}");
        }
        for (filter, name) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "a"),
            ("a", "a/b"),
        ] {
            assert!(!matches(filter, name), "{filter} does not take {name}");
        }
    }

    #[test]
    fn a_share_has_a_name_and_a_filter() {
        let shared = Subscribed::parse("$share/g/a/+").unwrap();
        assert_eq!(shared.share.as_ref().unwrap().as_str(), "g");
        assert_eq!(shared.filter.as_str(), "a/+");
        assert_eq!(shared.to_string(), "$share/g/a/+");
        let reserved = Subscribed::parse("$share/g/$SYS/#").unwrap();
        assert_eq!(reserved.filter.as_str(), "$SYS/#");
        let plain = Subscribed::parse("$shared/g/a").unwrap();
        assert_eq!((plain.share, plain.filter.as_str()), (None, "$shared/g/a"));
        for text in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g#/a",
        ] {
            assert_eq!(Subscribed::parse(text), Err(TopicError::BadShare), "{text}");
        }
        assert_eq!(
            Subscribed::parse("$share/g/a/#/b"),
            Err(TopicError::MisplacedWildcard)
        );
    }

    #[test]
    fn bad_topics_are_refused_with_the_reason() {
        assert_eq!(TopicName::parse(""), Err(TopicError::Empty));
        assert_eq!(TopicName::parse("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::parse("a\0"), Err(TopicError::ControlCharacter));
        assert_eq!(TopicName::parse_bytes(&[0xff]), Err(TopicError::NotUtf8));
        assert_eq!(
            TopicName::parse(&"x".repeat(TOPIC_BYTES_MAX + 1)),
            Err(TopicError::TooLong)
        );
        assert_eq!(
            TopicName::parse(&"/".repeat(TOPIC_LEVELS_MAX)),
            Err(TopicError::TooDeep)
        );
        for filter in ["a+", "a/#/b", "#a", "a/b#", "++"] {
            assert_eq!(
                TopicFilter::parse(filter),
                Err(TopicError::MisplacedWildcard),
                "{filter}"
            );
        }
    }
}
