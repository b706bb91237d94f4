//! From the facts of a group's things to documents, what each line is based on, and the replay.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    cover::cover,
    document::{Grant, ProposedPolicy, position},
    fit::fit,
    ground::Grounds,
    guard::Guard,
    observations::{Fact, Observations},
    replay::replay,
    shape::{Actor, Shape},
    unbounded,
};
use crate::{
    identity::{GroupName, Thing, ThingName},
    limits::{POLICIES_PER_GROUP_MAX, POLICY_CHARACTERS_MAX},
    policy::Action,
    timestamp::Timestamp,
};

/// Examples that a line of the basis has.
const EXAMPLES_MAX: usize = 3;

/// Something that a thing of the group did.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// Who.
    pub thing: &'a Thing,
    /// Under which client id.
    pub client_id: Arc<str>,
    /// What.
    pub action: Action,
    /// On what.
    pub resource: String,
    /// How often.
    pub times: u64,
    /// When anybody did the like for the first time.
    pub first: Timestamp,
    /// And for the last time.
    pub last: Timestamp,
    /// What allowed it, or the like.
    pub grounds: Grounds,
}

impl Deed<'_> {
    pub(super) fn actor(&self) -> Actor<'_> {
        Actor {
            thing: self.thing,
            client_id: &self.client_id,
        }
    }
}

/// What one line of a proposal is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Which policy of the proposal, from 0.
    pub policy: usize,
    /// The statement.
    pub sid: String,
    /// The line.
    pub grant: Grant,
    /// How many things did it.
    pub things: usize,
    /// Whether there were others that were not remembered by name.
    pub more_things: bool,
    /// How often, as far as it was remembered who.
    pub times: u64,
    /// When for the first time.
    pub first: Timestamp,
    /// When for the last time.
    pub last: Timestamp,
    /// Some of the resources, as they were.
    pub examples: Vec<String>,
    /// Why it is wider than what was seen.
    pub wider: Option<Wider>,
    /// What allowed it.
    pub grounds: Grounds,
}

/// Why a line is wider than what was seen, its variables aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wider {
    /// A level has values that nobody could list.
    Unbounded,
    /// It stands for this many lines, which did not fit.
    Size(usize),
}

/// Something that was seen and is not proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The action.
    pub action: Action,
    /// On what.
    pub shape: Shape,
    /// Why.
    pub why: &'static str,
}

/// A least-privilege policy for a group.
#[derive(Debug)]
pub struct Proposal<'a> {
    /// One document, or two.
    pub policies: Vec<ProposedPolicy>,
    /// What each line is based on, in the order of the documents.
    pub basis: Vec<Basis>,
    /// What was seen and is not proposed.
    pub left_out: Vec<LeftOut>,
    /// Everything that was seen of the group's things; the proposal was held to all of it, but what
    /// is left out.
    pub deeds: Vec<Deed<'a>>,
    /// The things of the group that did nothing.
    pub silent: Vec<&'a ThingName>,
    /// How many things the group has.
    pub things: usize,
    /// How many observations there was no room for, of all groups.
    pub lost: u64,
}

/// Why there is no proposal.
#[derive(Debug, thiserror::Error)]
pub enum NoProposal {
    /// The group has no things.
    #[error("the group `{0}` has no things")]
    NoThings(GroupName),
    /// None of them did anything.
    #[error("nothing was observed of the {things} things of the group `{group}`")]
    NothingObserved {
        /// The group.
        group: GroupName,
        /// How many things it has.
        things: usize,
    },
    /// All that was seen is left out.
    #[error("nothing that was observed of the group `{0}` can be proposed")]
    NothingToPropose(GroupName),
    /// It does not fit, even with everything widened that may be.
    #[error(
        "what was observed needs {0} characters, and {POLICIES_PER_GROUP_MAX} policies have \
         {POLICY_CHARACTERS_MAX} each; split the group into groups of things that do the same"
    )]
    TooLarge(usize),
    /// The proposal is not a policy, or does not allow what was seen: a mistake of this module.
    #[error("the proposal failed its own check: {0}")]
    Unsound(String),
}

/// Proposes policies for the things that are in `group` now. `things` are all of the registry:
/// what others do under their names is kept from the group.
///
/// # Errors
/// If nothing was seen, or nothing fits.
pub fn propose<'a>(
    observations: &Observations,
    things: &'a [Arc<Thing>],
    group: &GroupName,
) -> Result<Proposal<'a>, NoProposal> {
    let members = members(things, group);
    if members.is_empty() {
        return Err(NoProposal::NoThings(group.clone()));
    }
    let facts = merged(observations);
    let mut left_out = Vec::new();
    let (deeds, wide) = deeds(&facts, &members, &mut left_out);
    if deeds.is_empty() {
        return Err(NoProposal::NothingObserved {
            group: group.clone(),
            things: members.len(),
        });
    }
    let names = things.iter().map(|thing| thing.name.as_str()).collect();
    let guard = Guard::new(observations, &names);
    let mut chosen = Chosen::default();
    for shape in wide {
        chosen.add_wide(shape, &guard, &deeds, &mut left_out);
    }
    for action in Action::ALL {
        chosen.add_action(action, &guard, &deeds);
    }
    let grants = chosen.grants(|action, shape| {
        let grounds = grounds(&[action], shape, &deeds, &facts);
        grounds.condition().cloned()
    });
    if grants.is_empty() {
        return Err(NoProposal::NothingToPropose(group.clone()));
    }
    let fitted = fit(grants, &guard).map_err(NoProposal::TooLarge)?;
    replay(&fitted.policies, &deeds, &left_out)?;
    let basis = basis(&fitted.policies, &deeds, &facts, |grant| {
        let widened = fitted.widened.iter();
        let size = widened.filter(|(shape, _)| *shape == grant.shape);
        let size = size.map(|(_, replaced)| Wider::Size(*replaced)).next_back();
        size.or(grant.shape.has_any().then_some(Wider::Unbounded))
    });
    Ok(Proposal {
        basis,
        policies: fitted.policies,
        left_out,
        silent: silent(observations, &members, &deeds),
        deeds,
        things: members.len(),
        lost: observations.lost(),
    })
}

type Members<'a> = BTreeMap<&'a str, &'a Thing>;
type Facts = BTreeMap<(&'static str, Shape), Vec<Fact>>;

fn members<'a>(things: &'a [Arc<Thing>], group: &GroupName) -> Members<'a> {
    let its = things.iter().filter(|thing| thing.groups.contains(group));
    its.map(|thing| (thing.name.as_str(), &**thing)).collect()
}

/// The facts of all tables: a thing may have changed its groups since.
fn merged(observations: &Observations) -> Facts {
    let mut facts = Facts::new();
    for fact in observations.facts() {
        let key = (fact.action.name(), fact.shape.clone());
        facts.entry(key).or_default().push(fact.clone());
    }
    facts
}

/// What the members did, and the shapes whose resources nobody could list.
fn deeds<'a>(
    facts: &Facts,
    members: &Members<'a>,
    left_out: &mut Vec<LeftOut>,
) -> (Vec<Deed<'a>>, Vec<(Action, Shape)>) {
    let mut deeds: BTreeMap<(&'static str, String, &str, Arc<str>), Deed<'a>> = BTreeMap::new();
    let mut wide = Vec::new();
    for fact in facts.values().flatten() {
        let mut add = |doer: &super::Doer, shape: &Shape, times: u64| {
            let Some(thing) = members.get(doer.thing.as_str()).copied() else {
                return;
            };
            let actor = Actor {
                thing,
                client_id: &doer.client_id,
            };
            let Some(resource) = shape.fill(&actor) else {
                let gone = LeftOut {
                    action: fact.action,
                    shape: shape.clone(),
                    why: "a thing that did it has lost the attribute or the type in it",
                };
                if !left_out.contains(&gone) {
                    left_out.push(gone);
                }
                return;
            };
            let name = thing.name.as_str();
            let key = (
                fact.action.name(),
                resource.clone(),
                name,
                doer.client_id.clone(),
            );
            let deed = deeds.entry(key).or_insert_with(|| Deed {
                thing,
                client_id: doer.client_id.clone(),
                action: fact.action,
                resource,
                times: 0,
                first: fact.first,
                last: fact.last,
                grounds: Grounds::default(),
            });
            deed.grounds.absorb(fact.grounds.clone(), usize::MAX);
            deed.times = deed.times.saturating_add(times);
            deed.first = deed.first.min(fact.first);
            deed.last = deed.last.max(fact.last);
        };
        if fact.shape.has_any() {
            let mut is_ours = false;
            for (doer, example) in &fact.examples {
                is_ours |= members.contains_key(doer.thing.as_str());
                if let Some(example) = Shape::parse(example) {
                    add(doer, &example, 1);
                }
            }
            is_ours |= fact
                .doers
                .keys()
                .any(|d| members.contains_key(d.thing.as_str()));
            let shape = (fact.action, fact.shape.clone());
            if is_ours && !wide.contains(&shape) {
                wide.push(shape);
            }
        } else {
            for (doer, times) in &fact.doers {
                add(doer, &fact.shape, *times);
            }
        }
    }
    (deeds.into_values().collect(), wide)
}

/// The shapes of each action.
#[derive(Default)]
struct Chosen {
    shapes: BTreeMap<usize, BTreeSet<Shape>>,
}

impl Chosen {
    fn insert(&mut self, action: Action, shape: Shape) {
        self.shapes
            .entry(position(action))
            .or_default()
            .insert(shape);
    }

    /// A shape that was recorded with an unbounded level.
    fn add_wide(
        &mut self,
        (action, shape): (Action, Shape),
        guard: &Guard,
        deeds: &[Deed<'_>],
        left_out: &mut Vec<LeftOut>,
    ) {
        if may_be_wide(action, &shape, guard) {
            self.insert(action, shape);
            return;
        }
        let listed = deeds
            .iter()
            .any(|deed| deed.action == action && shape.takes(&deed.actor(), &deed.resource));
        left_out.push(LeftOut {
            action,
            shape,
            why: if listed {
                "a `*` here would reach what other things do under their names; \
                 only those that were remembered are proposed"
            } else {
                "a `*` here would reach what other things do under their names"
            },
        });
    }

    /// What explains all that was done, its unbounded levels made anything.
    fn add_action(&mut self, action: Action, guard: &Guard, deeds: &[Deed<'_>]) {
        let mut covered = cover(deeds, action);
        // What a wide shape takes needs no line of its own, unless it is more than a case of it.
        let wide: Vec<Shape> = self
            .shapes
            .get(&position(action))
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        covered.retain(|shape, _| !wide.iter().any(|wide| wide.covers(shape)));
        let collapsed = unbounded::collapse(covered.keys());
        for shape in covered.into_keys() {
            match collapsed.get(&shape) {
                Some(wide) if may_be_wide(action, wide, guard) => self.insert(action, wide.clone()),
                _ => self.insert(action, shape),
            }
        }
    }

    /// A grant for each resource, with all actions on it that are allowed under the same condition.
    fn grants(self, condition: impl Fn(Action, &Shape) -> Option<Arc<str>>) -> Vec<Grant> {
        type Key = (&'static str, Shape, Option<Arc<str>>);
        let mut grants: BTreeMap<Key, Vec<Action>> = BTreeMap::new();
        for action in Action::ALL {
            for shape in self.shapes.get(&position(action)).into_iter().flatten() {
                let condition = condition(action, shape);
                let key = (action.resource_type(), shape.clone(), condition);
                grants.entry(key).or_default().push(action);
            }
        }
        let grants = grants.into_iter();
        grants
            .map(|((_, shape, condition), actions)| Grant {
                actions,
                shape,
                condition,
            })
            .collect()
    }
}

fn may_be_wide(action: Action, shape: &Shape, guard: &Guard) -> bool {
    !guard.is_crossed_by(action, shape) || guard.is_subscribed(action, shape)
}

/// What allowed everything that a line with `actions` on `shape` is based on.
fn grounds(actions: &[Action], shape: &Shape, deeds: &[Deed<'_>], facts: &Facts) -> Grounds {
    let mut found = Grounds::default();
    let its = |deed: &&Deed<'_>| {
        actions.contains(&deed.action) && shape.takes(&deed.actor(), &deed.resource)
    };
    for deed in deeds.iter().filter(its) {
        found.absorb(deed.grounds.clone(), usize::MAX);
    }
    // A wide fact remembers more doings than examples.
    let wide = actions.iter().filter(|_| shape.has_any());
    let wide = wide.filter_map(|action| facts.get(&(action.name(), shape.clone())));
    for fact in wide.flatten() {
        found.absorb(fact.grounds.clone(), usize::MAX);
    }
    found
}

fn basis(
    policies: &[ProposedPolicy],
    deeds: &[Deed<'_>],
    facts: &Facts,
    wider: impl Fn(&Grant) -> Option<Wider>,
) -> Vec<Basis> {
    let lines = (0..).zip(policies).flat_map(|(policy, document)| {
        let lines = document.lines.iter();
        lines.map(move |(sid, grant)| (policy, sid, grant))
    });
    lines
        .map(|(policy, sid, grant)| {
            let its = |action| grant.actions.contains(&action);
            let based: Vec<&Deed<'_>> = deeds
                .iter()
                .filter(|deed| its(deed.action) && grant.shape.takes(&deed.actor(), &deed.resource))
                .collect();
            let things: BTreeSet<&str> = based.iter().map(|d| d.thing.name.as_str()).collect();
            let mut examples: Vec<String> = based.iter().map(|d| d.resource.clone()).collect();
            examples.dedup();
            examples.truncate(EXAMPLES_MAX);
            let recorded = grant
                .actions
                .iter()
                .filter_map(|action| facts.get(&(action.name(), grant.shape.clone())));
            let recorded: Vec<&Fact> = recorded.flatten().collect();
            // A wide fact remembers more doings than examples.
            let counted = |fact: &&Fact| fact.times;
            let wide_times: u64 = match grant.shape.has_any() {
                true => recorded.iter().map(counted).sum(),
                false => 0,
            };
            let firsts = based.iter().map(|deed| deed.first);
            let lasts = based.iter().map(|deed| deed.last);
            Basis {
                policy,
                sid: sid.clone(),
                grant: grant.clone(),
                things: things.len(),
                more_things: recorded.iter().any(|fact| fact.more_doers),
                times: wide_times.max(based.iter().map(|deed| deed.times).sum()),
                first: firsts.min().unwrap_or_default(),
                last: lasts
                    .chain(recorded.iter().map(|f| f.last))
                    .max()
                    .unwrap_or_default(),
                examples,
                wider: wider(grant),
                grounds: grounds(&grant.actions, &grant.shape, deeds, facts),
            }
        })
        .collect()
}

fn silent<'a>(
    observations: &Observations,
    members: &Members<'a>,
    deeds: &[Deed<'_>],
) -> Vec<&'a ThingName> {
    let tables = observations.tables();
    let mut active: BTreeSet<&str> = tables
        .flat_map(|(_, table)| table.active())
        .map(ThingName::as_str)
        .collect();
    active.extend(deeds.iter().map(|deed| deed.thing.name.as_str()));
    let silent = members.iter().filter(|(name, _)| !active.contains(*name));
    silent.map(|(_, thing)| &thing.name).collect()
}
