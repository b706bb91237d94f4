//! Which sinks a record is for. Decided once, when it is made: what is in the buffer keeps its sinks
//! whatever the settings say later.

use crate::{
    identity::GroupName,
    record::{Kind, Lane, SinkSet},
    topic::{TopicFilter, TopicName},
};

/// Takes what matches all that it names; naming nothing of a sort matches all of that sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub sinks: SinkSet,
    /// Kinds of records.
    pub kinds: Vec<Kind>,
    /// Groups of the thing, of which one is enough.
    pub groups: Vec<GroupName>,
    /// Filters of which one has to match. What has no topic matches none.
    pub topics: Vec<TopicFilter>,
    /// Whether the default sinks get it as well.
    pub also_default: bool,
}

/// All routes, and the sinks of what no route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    default: SinkSet,
    routes: Vec<Route>,
    /// What goes to sinks of its own, by its kind alone.
    by_kind: Vec<(Kind, SinkSet)>,
}

impl Default for Routes {
    /// Everything to every sink.
    fn default() -> Self {
        Self::new(SinkSet::ALL)
    }
}

impl Routes {
    /// Everything of the lanes `critical` and `events` to `default`.
    pub fn new(default: SinkSet) -> Self {
        Self {
            default,
            routes: Vec::new(),
            by_kind: Vec::new(),
        }
    }

    /// A further route.
    pub fn push(&mut self, route: Route) {
        self.routes.push(route);
    }

    /// Records of `kind` go to `sinks` as well, whatever the routes say.
    pub fn push_kind(&mut self, kind: Kind, sinks: SinkSet) {
        self.by_kind.push((kind, sinks));
    }

    /// The sinks of a record: those of all routes that take it, or else the default ones. What is
    /// in bulk goes only where its kind leads.
    pub fn select(&self, kind: Kind, groups: &[GroupName], topic: Option<&TopicName>) -> SinkSet {
        let mut sinks = SinkSet::EMPTY;
        if kind.lane() != Lane::Bulk {
            let (mut taken, mut default) = (false, false);
            for route in &self.routes {
                if route.takes(kind, groups, topic) {
                    sinks = sinks.union(route.sinks);
                    taken = true;
                    default |= route.also_default;
                }
            }
            if !taken || default {
                sinks = sinks.union(self.default);
            }
        }
        for (of, further) in &self.by_kind {
            if *of == kind {
                sinks = sinks.union(*further);
            }
        }
        sinks
    }
}

impl Route {
    fn takes(&self, kind: Kind, groups: &[GroupName], topic: Option<&TopicName>) -> bool {
        let of_kind = self.kinds.is_empty() || self.kinds.contains(&kind);
        let in_group =
            self.groups.is_empty() || self.groups.iter().any(|group| groups.contains(group));
        let on_topic = self.topics.is_empty()
            || topic.is_some_and(|topic| self.topics.iter().any(|filter| filter.matches(topic)));
        of_kind && in_group && on_topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Vec<GroupName> {
        let parse = |name: &&str| GroupName::parse(name).unwrap();
        names.iter().map(parse).collect()
    }

    fn filters(texts: &[&str]) -> Vec<TopicFilter> {
        let parse = |text: &&str| TopicFilter::parse(text).unwrap();
        texts.iter().map(parse).collect()
    }

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    const DEFAULT: SinkSet = SinkSet::single(0);

    #[test]
    fn what_no_route_takes_goes_to_the_default() {
        let mut routes = Routes::new(DEFAULT);
        let all = |routes: &Routes| routes.select(Kind::Event, &[], Some(&topic("a")));
        assert_eq!(all(&routes), DEFAULT);
        routes.push(Route {
            sinks: SinkSet::single(1),
            kinds: vec![Kind::Violation],
            ..Route::default()
        });
        assert_eq!(all(&routes), DEFAULT);
        let violation = routes.select(Kind::Violation, &[], None);
        assert_eq!(violation, SinkSet::single(1));
    }

    #[test]
    fn a_route_takes_what_matches_all_that_it_names() {
        let mut routes = Routes::new(DEFAULT);
        routes.push(Route {
            sinks: SinkSet::single(1),
            kinds: vec![Kind::Event],
            groups: groups(&["pumps", "valves"]),
            topics: filters(&["dt/+/pressure", "dt/alarm/#"]),
            also_default: false,
        });
        for (kind, group, name, taken) in [
            (Kind::Event, "pumps", Some("dt/p1/pressure"), true),
            (Kind::Event, "valves", Some("dt/alarm/x/y"), true),
            (Kind::Event, "doors", Some("dt/p1/pressure"), false),
            (Kind::Event, "pumps", Some("dt/p1/level"), false),
            (Kind::Event, "pumps", None, false),
            (Kind::Violation, "pumps", Some("dt/p1/pressure"), false),
        ] {
            let selected = routes.select(kind, &groups(&["all", group]), name.map(topic).as_ref());
            let expected = if taken { SinkSet::single(1) } else { DEFAULT };
            assert_eq!(selected, expected, "{kind:?} {group} {name:?}");
        }
    }

    #[test]
    fn all_routes_that_match_get_it_and_one_may_say_that_the_default_does_as_well() {
        let mut routes = Routes::new(DEFAULT);
        for (sink, also_default) in [(1, false), (2, true)] {
            routes.push(Route {
                sinks: SinkSet::single(sink),
                topics: filters(&[["a/#", "a/b"][sink - 1]]),
                also_default,
                ..Route::default()
            });
        }
        let of = |name| routes.select(Kind::Event, &[], Some(&topic(name)));
        assert_eq!(of("a/c"), SinkSet::single(1));
        let all = DEFAULT.union(SinkSet::single(1)).union(SinkSet::single(2));
        assert_eq!(of("a/b"), all);
    }

    #[test]
    fn bulk_goes_only_where_its_kind_leads() {
        let mut routes = Routes::new(DEFAULT);
        routes.push(Route {
            sinks: SinkSet::single(1),
            ..Route::default()
        });
        assert_eq!(routes.select(Kind::Metric, &[], None), SinkSet::EMPTY);
        routes.push_kind(Kind::Metric, SinkSet::single(2));
        assert_eq!(routes.select(Kind::Metric, &[], None), SinkSet::single(2));
        assert_eq!(routes.select(Kind::Log, &[], None), SinkSet::EMPTY);
    }
}
