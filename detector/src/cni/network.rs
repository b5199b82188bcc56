//! What a network has to give, checked: its subnets, the addresses among them, and what a container is told besides.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use ipnet::Ipv6Net;
use serde_json::Value;

use super::{
    call,
    conf::{NetConf, Range, Route},
    failure::Failure,
    place::{Place, ipam},
};
use crate::{
    allocator::{InvalidPool, Pool},
    capture::Probing,
    net::{Domain, Ipv4Net, Ipv4Range},
    time::Span,
};

/// A network that addresses are given from.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) place: Place,
    /// Each subnet once.
    pub(super) subnets: Vec<Subnet>,
    /// What the configuration calls its ranges: whatever else may be on the bridge is another's.
    pub(super) ranges: Vec<Ipv4Range>,
    /// The addresses of the ranges that may be given, in the order of the ranges.
    pub(super) within: Vec<Ipv4Range>,
    pub(super) routes: Vec<Route>,
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) look: Look,
}

/// A subnet as the configuration describes it. What it does not say is as it was, if the pool is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    subnet: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    cooldown: Option<Span>,
    excluded: Option<Vec<Ipv4Range>>,
}

/// How an address is looked at before it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// In the agent's live table, and on the wire if no agent runs.
    Usual,
    /// In the agent's live table, if one runs.
    TableOnly,
    /// In the table, if there is one, and on the wire.
    Wire(Probing),
}

impl Network {
    pub(super) fn of(conf: &NetConf) -> Result<Self, Failure> {
        let place = Place::of(conf)?;
        let ipam = ipam(conf)?;
        let cooldown = ipam.cooldown.as_deref().map(cooldown).transpose()?;
        let general = ipam.range.exclude.as_deref().map(excluded).transpose()?;
        let mut stretches = Vec::new();
        for range in &range_set(conf)? {
            stretches.push(Stretch::of(place.domain, range, cooldown, general.as_deref())?);
        }
        is_somewhere(general.as_deref(), &stretches)?;
        is_disjoint(&stretches)?;
        Ok(Self {
            subnets: subnets(&stretches)?,
            ranges: stretches.iter().map(|stretch| stretch.whole).collect(),
            within: stretches.into_iter().flat_map(|stretch| stretch.within).collect(),
            routes: ipam.routes.iter().flatten().map(route).collect::<Result<_, _>>()?,
            resolv_conf: ipam.resolv_conf.clone().filter(|path| !path.is_empty()).map(PathBuf::from),
            look: look(ipam.probe.as_ref())?,
            place,
        })
    }

    /// The address that the runtime asks for, if it asks for one: by `CNI_ARGS`, `args.cni.ips` or `runtimeConfig.ips`.
    pub(super) fn wanted(&self, conf: &NetConf, by_env: Vec<Ipv4Addr>) -> Result<Option<Ipv4Addr>, Failure> {
        let mut wanted = by_env;
        for text in wanted_by_conf(conf)? {
            let address = call::address(&text);
            wanted
                .push(address.ok_or_else(|| Failure::config(format_args!("`{text}` was asked for: no IPv4 address")))?);
        }
        wanted.sort_unstable();
        wanted.dedup();
        match wanted.as_slice() {
            [] => Ok(None),
            &[one] if self.within.iter().any(|range| range.contains(one)) => Ok(Some(one)),
            [one] => Err(Failure::config(format_args!("{one} was asked for, which this network does not give"))),
            [first, second, ..] => {
                Err(Failure::config(format_args!("{first} and {second} were asked for: an interface gets one address")))
            }
        }
    }
}

impl Subnet {
    /// The pool of this subnet, `there` being what the book has for it.
    pub(super) fn pool(&self, domain: Domain, there: Option<&Pool>) -> Result<Pool, InvalidPool> {
        let gateway = self.gateway.or(there.and_then(Pool::gateway)).unwrap_or(first_host(self.subnet));
        let cooldown = self.cooldown.or(there.map(Pool::cooldown)).unwrap_or(Pool::COOLDOWN);
        let excluded = self.excluded.clone().or(there.map(|pool| pool.excluded().to_vec()));
        Pool::new(domain, self.subnet, Some(gateway), cooldown)?.excluding(excluded.unwrap_or_default())
    }

    pub(super) fn net(&self) -> Ipv4Net {
        self.subnet
    }
}

/// One range of the configuration.
struct Stretch {
    subnet: Subnet,
    whole: Ipv4Range,
    within: Vec<Ipv4Range>,
}

impl Stretch {
    fn of(
        domain: Domain,
        range: &Range,
        cooldown: Option<Span>,
        general: Option<&[Ipv4Range]>,
    ) -> Result<Self, Failure> {
        let net = subnet(range)?;
        let gateway = range.gateway.as_deref().map(|text| address("gateway", text)).transpose()?;
        let own = range.exclude.as_deref().map(excluded).transpose()?;
        let general = general.map(|all| all.iter().copied().filter(|one| is_within(*one, net)).collect::<Vec<_>>());
        let excluded = match (own, general) {
            (None, None) => None,
            (own, general) => Some(own.into_iter().chain(general).flatten().collect()),
        };
        let subnet = Subnet { subnet: net, gateway, cooldown, excluded };
        let pool = subnet.pool(domain, None)?;
        let whole = whole(range, net)?;
        let within: Vec<_> = pool.ranges().into_iter().filter_map(|run| run.intersection(whole)).collect();
        match within.is_empty() {
            true => Err(Failure::config(format_args!("{whole} leaves no address to give")))?,
            false => Ok(Self { subnet, whole, within }),
        }
    }
}

/// The ranges, which are tried one after the other.
fn range_set(conf: &NetConf) -> Result<Vec<Range>, Failure> {
    let ipam = ipam(conf)?;
    let by_runtime = conf.runtime_config.iter().filter_map(|runtime| runtime.ip_ranges.clone()).flatten();
    let old = ipam.range.subnet.as_ref().map(|_| vec![Range { exclude: None, ..ipam.range.clone() }]);
    let mut sets: Vec<_> = by_runtime.chain(old).chain(ipam.ranges.clone().into_iter().flatten()).collect();
    match (sets.pop(), sets.len()) {
        (Some(set), 0) if !set.is_empty() => Ok(set),
        (None, _) | (Some(_), 0) => Err(Failure::config("no range of addresses is given")
            .hint(r#"add "ranges": [[{"subnet": "10.8.64.0/24"}]] to `ipam`"#)),
        (Some(_), more) => {
            let what =
                format!("{} sets of ranges would be as many addresses for an interface, which gets one", more + 1);
            Err(Failure::config(what).hint("keep one set; the ranges within it are used one after the other"))
        }
    }
}

fn subnet(range: &Range) -> Result<Ipv4Net, Failure> {
    let text = range.subnet.as_deref().ok_or_else(|| {
        Failure::config("a range has no subnet").hint(r#"add "subnet": "10.8.64.0/24" to each of `ranges`"#)
    })?;
    if text.parse::<Ipv6Net>().is_ok() {
        return Err(Failure::config(format_args!("subnet {text}: there are leases for IPv4 only")));
    }
    let net: Ipv4Net =
        text.parse().map_err(|_| Failure::config(format_args!("subnet `{text}` is no network: write 10.8.64.0/24")))?;
    match net.prefix_len() {
        0..=30 => Ok(net),
        _ => Err(Failure::config(format_args!("subnet {net} is too small for a gateway and an address to give"))),
    }
}

fn whole(range: &Range, net: Ipv4Net) -> Result<Ipv4Range, Failure> {
    let all = Ipv4Range::from(net);
    let end = |field: &str, text: Option<&str>, default: Ipv4Addr| match text {
        None => Ok(default),
        Some(text) => match address(field, text)? {
            end if all.contains(end) => Ok(end),
            end => Err(Failure::config(format_args!("{field} {end} is not in {net}"))),
        },
    };
    let first = end("rangeStart", range.range_start.as_deref(), all.first())?;
    let last = end("rangeEnd", range.range_end.as_deref(), all.last())?;
    Ipv4Range::new(first, last)
        .map_err(|_| Failure::config(format_args!("rangeEnd {last} comes before rangeStart {first}")))
}

fn excluded(texts: &[String]) -> Result<Vec<Ipv4Range>, Failure> {
    let range = |text: &String| text.parse().map_err(|error| Failure::config(error).about("exclude"));
    texts.iter().map(range).collect()
}

/// What is left out for all ranges must be in one of them: else it is misspelt, and would be given.
fn is_somewhere(general: Option<&[Ipv4Range]>, stretches: &[Stretch]) -> Result<(), Failure> {
    let nowhere = |one: &&Ipv4Range| !stretches.iter().any(|stretch| is_within(**one, stretch.subnet.subnet));
    match general.into_iter().flatten().find(nowhere) {
        Some(one) => Err(Failure::config(format_args!("exclude: {one} is not within the subnet of any range"))),
        None => Ok(()),
    }
}

fn is_disjoint(stretches: &[Stretch]) -> Result<(), Failure> {
    let mut wholes: Vec<_> = stretches.iter().map(|stretch| stretch.whole).collect();
    wholes.sort_unstable();
    let overlap = wholes.windows(2).find_map(|pair| match pair {
        [lower, upper] => lower.intersection(*upper).map(|both| (lower, upper, both)),
        _ => None,
    });
    match overlap {
        Some((lower, upper, both)) => {
            Err(Failure::config(format_args!("the ranges {lower} and {upper} both have {both}")))
        }
        None => Ok(()),
    }
}

/// Each subnet once, with what its ranges say of it together.
fn subnets(stretches: &[Stretch]) -> Result<Vec<Subnet>, Failure> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for Stretch { subnet, .. } in stretches {
        match subnets.iter_mut().find(|known| known.subnet == subnet.subnet) {
            None => subnets.push(subnet.clone()),
            Some(known) => merge(known, subnet)?,
        }
    }
    Ok(subnets)
}

fn merge(known: &mut Subnet, other: &Subnet) -> Result<(), Failure> {
    if let (Some(one), Some(two)) = (known.gateway, other.gateway)
        && one != two
    {
        let net = known.subnet;
        return Err(Failure::config(format_args!("the ranges of {net} name two gateways, {one} and {two}: keep one")));
    }
    known.gateway = known.gateway.or(other.gateway);
    if let Some(excluded) = &other.excluded {
        known.excluded.get_or_insert_default().extend(excluded);
    }
    Ok(())
}

fn is_within(range: Ipv4Range, net: Ipv4Net) -> bool {
    range.intersection(net.into()) == Some(range)
}

fn first_host(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.network().to_bits().saturating_add(1))
}

fn address(field: &str, text: &str) -> Result<Ipv4Addr, Failure> {
    text.parse().map_err(|_| Failure::config(format_args!("{field} `{text}` is no IPv4 address")))
}

fn route(route: &Route) -> Result<Route, Failure> {
    let Route { dst, gw, .. } = route;
    if dst.parse::<ipnet::IpNet>().is_err() {
        return Err(Failure::config(format_args!("route to `{dst}`: write a network such as 0.0.0.0/0")));
    }
    match gw.as_deref().filter(|gw| gw.parse::<std::net::IpAddr>().is_err()) {
        Some(gw) => Err(Failure::config(format_args!("route to {dst}: its gw `{gw}` is no address"))),
        None => Ok(route.clone()),
    }
}

fn cooldown(text: &str) -> Result<Span, Failure> {
    let millis = duration("cooldown", text)?.as_millis();
    Ok(Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

fn duration(field: &str, text: &str) -> Result<Duration, Failure> {
    let what = |error| Failure::config(format_args!("{field} `{text}`: {error}; write 10m or 20ms"));
    humantime::parse_duration(text).map_err(what)
}

/// `true`, `false` or `{"count": 2, "interval": "20ms"}`.
fn look(probe: Option<&Value>) -> Result<Look, Failure> {
    match probe {
        None => Ok(Look::Usual),
        Some(Value::Bool(false)) => Ok(Look::TableOnly),
        Some(Value::Bool(true)) => wire(&Value::Null),
        Some(terms @ Value::Object(_)) => wire(terms),
        Some(other) => Err(bad_probe(other)),
    }
}

/// The bounds keep an ADD from being longer than a runtime waits for it.
fn wire(terms: &Value) -> Result<Look, Failure> {
    let bad = || bad_probe(terms);
    let Probing { mut count, mut interval } = Probing::default();
    if let Some(said) = terms.get("count") {
        count = said.as_u64().and_then(|said| u32::try_from(said).ok()).ok_or_else(bad)?;
    }
    if let Some(said) = terms.get("interval") {
        interval = duration("interval of probe", said.as_str().ok_or_else(bad)?)?;
    }
    let is_sane = (1..=10).contains(&count) && (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&interval);
    if is_sane { Ok(Look::Wire(Probing { count, interval })) } else { Err(bad()) }
}

fn bad_probe(probe: &Value) -> Failure {
    Failure::config(format_args!("probe {probe} is not understood"))
        .hint(r#"write false, true, or {"count": 2, "interval": "20ms"} with at most 10 probes a second apart"#)
}

/// What the configuration asks for. A runtime that was told of a container's addresses puts them into either place.
fn wanted_by_conf(conf: &NetConf) -> Result<Vec<String>, Failure> {
    let by_runtime = conf.runtime_config.iter().filter_map(|runtime| runtime.ips.clone()).flatten();
    let by_args = match conf.args.as_ref().and_then(|args| args.pointer("/cni/ips")) {
        None | Some(Value::Null) => Vec::new(),
        Some(ips) => serde_json::from_value(ips.clone())
            .map_err(|_| Failure::config(format_args!("args.cni.ips is {ips}: write a list of addresses")))?,
    };
    Ok(by_args.into_iter().chain(by_runtime).collect())
}
