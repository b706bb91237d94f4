//! The course of the demo: site, fleet, calm, attacks in turn, verdict.

use std::{collections::VecDeque, io::Write, time::Duration};

use anyhow::Result;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Verdict,
    attacks::Attack,
    fleet::{Enrolled, Fleet},
    outbox::{self, Alert},
    scrape::{self, Counters},
    screen::Screen,
    site::Site,
    summary::{Findings, Played, Summary},
};
use crate::{cli::DemoArgs, clock::now};

/// From the connected fleet to the first attack: normal traffic is to be seen, too.
const CALM: Duration = Duration::from_secs(2);
/// Between attacks, if nothing presses.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between attacks that an eye can still tell apart. A slow machine plays on over the time it was given.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// From the last attack to the end of the time that was given.
const RESERVE: Duration = Duration::from_secs(4);
/// After an attack the demo calls its alert missing. Generous: it is for slow machines.
const ALERT_MAX: Duration = Duration::from_secs(15);
/// How often counters are read.
const PERIOD: Duration = Duration::from_secs(1);

/// A running demo.
#[derive(Debug)]
pub(super) struct Show {
    site: Site,
    fleet: Fleet,
    alerts: mpsc::Receiver<Alert>,
    /// Still to be played, and when the next one is.
    ahead: VecDeque<Attack>,
    next_at: Instant,
    pause: Duration,
    played: Vec<Played>,
    false_alerts: Vec<Alert>,
    faults: Vec<String>,
    counters: Counters,
}

type Ended = (Attack, Result<()>);

impl Show {
    /// From the first word to the verdict. `stop` ends it early, with a summary once there is a fleet.
    pub(super) async fn play(
        args: DemoArgs,
        started: Instant,
        screen: &mut Screen,
        stop: CancellationToken,
    ) -> Result<Verdict> {
        let deadline = args.duration.map(|duration| started + duration);
        let opened = tokio::select! {
            opened = Self::open(&args, deadline, screen) => opened?,
            () = stop.cancelled() => {
                screen.say("Stopped before the fleet was connected.");
                return Ok(Verdict::Passed);
            }
        };
        let mut show = opened;
        show.course(deadline, screen, &stop).await;
        let summary = show.close(started, screen).await;
        if args.json {
            let mut document = serde_json::to_vec_pretty(&summary)?;
            document.push(b'\n');
            std::io::stdout().lock().write_all(&document)?;
        } else {
            screen.block(&summary.table());
        }
        Ok(summary.verdict())
    }

    async fn open(args: &DemoArgs, deadline: Option<Instant>, screen: &mut Screen) -> Result<Self> {
        let mut site = Site::prepare(args).await?;
        screen.say(&format!("Configuration in {}", site.dir.display()));
        let enrolled = Enrolled::new(&site).await?;
        screen.say(&format!("Certificates issued: {}", Enrolled::describe()));
        site.start().await?;
        screen.say(&format!(
            "Gateway serves MQTT over mutual TLS on {}",
            site.mqtt
        ));
        screen.say(&format!("Metrics on http://{}/metrics", site.http));
        screen.say(&format!("Records in {}", site.outbox().display()));
        let alerts = outbox::watch(site.outbox())?;
        let fleet = Fleet::connect(enrolled, &site).await?;
        screen.say(&format!(
            "{} things connected; normal traffic",
            fleet.devices.len()
        ));
        let next_at = Instant::now() + CALM;
        Ok(Self {
            site,
            fleet,
            alerts,
            ahead: Attack::ALL.into(),
            next_at,
            pause: pause(deadline.map(|deadline| deadline.saturating_duration_since(next_at))),
            played: Vec::new(),
            false_alerts: Vec::new(),
            faults: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Everything between the connected fleet and the end.
    async fn course(
        &mut self,
        deadline: Option<Instant>,
        screen: &mut Screen,
        stop: &CancellationToken,
    ) {
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settle_until = None;
        loop {
            // The end waits for attacks that run and for alerts that are due.
            let over = stop.is_cancelled()
                || self.ahead.is_empty()
                    && deadline.is_some_and(|deadline| deadline <= Instant::now());
            if over {
                let late =
                    *settle_until.get_or_insert(Instant::now() + ALERT_MAX) <= Instant::now();
                let complete = running.is_empty() && self.played.iter().all(Played::is_detected);
                if complete || late {
                    return;
                }
            }
            tokio::select! {
                Some(alert) = self.alerts.recv() => self.take(alert, screen),
                Some(ended) = running.join_next() => self.note(ended),
                () = sleep_until(self.next_at), if !over && !self.ahead.is_empty() => {
                    self.attack(&mut running, screen);
                }
                _ = ticks.tick() => {
                    if !self.look(screen).await {
                        return;
                    }
                }
                () = stop.cancelled(), if !over => {}
                () = sleep_until(deadline.unwrap_or(self.next_at)), if !over && self.ahead.is_empty() && deadline.is_some() => {}
            }
        }
    }

    /// Starts the next attack.
    fn attack(&mut self, running: &mut JoinSet<Ended>, screen: &mut Screen) {
        let Some(attack) = self.ahead.pop_front() else {
            return;
        };
        self.next_at = Instant::now() + self.pause;
        let Some(device) = self.fleet.device(attack.thing()).cloned() else {
            self.faults.push(format!("no thing `{}`", attack.thing()));
            return;
        };
        screen.say(&format!("ATTACK  {}: {}", attack.name(), attack.story()));
        self.played.push(Played {
            attack,
            onset_ms: now().as_millis(),
            failed: None,
            alerts: Vec::new(),
        });
        let mqtt = self.site.mqtt;
        running.spawn(async move { (attack, attack.play(&device, mqtt).await) });
    }

    fn take(&mut self, alert: Alert, screen: &mut Screen) {
        let seen_ms = now().as_millis();
        let by = self
            .played
            .iter_mut()
            .find(|played| played.attack.thing() == alert.thing);
        let value = alert.value.as_ref().map(|value| format!(" {value}"));
        screen.say(&format!(
            "{}   {}: {}/{}{}",
            if by.is_some() { "ALERT" } else { "FALSE ALERT" },
            alert.thing,
            alert.profile,
            alert.behavior,
            value.unwrap_or_default(),
        ));
        match by {
            Some(played) => played.alerts.push((alert, seen_ms)),
            None => self.false_alerts.push(alert),
        }
    }

    fn note(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((attack, Err(error))) => {
                let played = self.played.iter_mut().find(|p| p.attack == attack);
                if let Some(played) = played {
                    played.failed = Some(format!("{error:#}"));
                }
            }
            Err(panic) => self.faults.push(format!("an attack ended badly: {panic}")),
        }
    }

    /// Shows the counters; false if there is no gateway any more.
    async fn look(&mut self, screen: &mut Screen) -> bool {
        match self.site.exited() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let log = self.site.log();
                self.faults.push(format!(
                    "the gateway ended by itself ({status}); see {}",
                    log.display()
                ));
                return false;
            }
            Err(error) => self.faults.push(format!("{error:#}")),
        }
        // A scrape that fails is tried again a second later; the last figures stay.
        if let Ok(counters) = scrape::counters(self.site.http).await {
            self.counters = counters;
        }
        let alerts = self
            .played
            .iter()
            .map(|played| played.alerts.len())
            .sum::<usize>();
        screen.status(&self.counters, alerts + self.false_alerts.len());
        true
    }

    /// The fleet leaves, the gateway drains, and what was said meanwhile counts, too.
    async fn close(mut self, started: Instant, screen: &mut Screen) -> Summary {
        screen.say("The fleet leaves, the gateway drains.");
        let things = self.fleet.devices.len();
        self.fleet.leave(screen).await;
        _ = self.look(screen).await;
        if let Err(error) = self.site.stop().await {
            self.faults.push(format!("{error:#}"));
        }
        while let Ok(alert) = self.alerts.try_recv() {
            self.take(alert, screen);
        }
        Summary::new(Findings {
            seconds: started.elapsed().as_secs_f64(),
            things,
            directory: self.site.dir.clone(),
            outbox: self.site.outbox(),
            played: self.played,
            false_alerts: self.false_alerts,
            faults: self.faults,
            counters: self.counters,
        })
    }
}

/// The time between attacks, when there is so much from the first of them to the end.
fn pause(left: Option<Duration>) -> Duration {
    let attacks = u32::try_from(Attack::ALL.len()).expect("there are four");
    left.map_or(PAUSE_MAX, |left| {
        (left.saturating_sub(RESERVE) / attacks).clamp(PAUSE_MIN, PAUSE_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_fit_the_time_they_are_given() {
        assert_eq!(pause(None), PAUSE_MAX);
        assert_eq!(
            pause(Some(Duration::from_secs(15))),
            Duration::from_millis(2750)
        );
        assert_eq!(pause(Some(Duration::ZERO)), PAUSE_MIN);
        assert_eq!(pause(Some(Duration::from_secs(3600))), PAUSE_MAX);
    }
}
