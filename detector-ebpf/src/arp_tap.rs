//! The ARP tap: a traffic control program that reports every claim that says something new, and changes no frame.
//!
//! It sits at the ingress of each bridge port and at the egress of the bridge device, and answers "go on", so that whatever
//! stands behind it runs as if it were not there; only a claim of an address that is in quarantine there ends. There are
//! three of it: where nobody wants to know of IPv4, and where nothing is in quarantine besides, the others' look at every
//! packet is not paid for.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod tap {
    use core::arch::asm;

    use aya_ebpf::{
        Global,
        bindings::{__sk_buff, BPF_F_NO_PREALLOC, TC_ACT_SHOT, TC_ACT_UNSPEC},
        helpers::bpf_ktime_get_boot_ns,
        macros::{classifier, map},
        maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
        programs::TcContext,
    };
    use aya_log_ebpf::debug;
    use detector_ebpf::{
        CONTRADICTIONS_BYTES, CONTRADICTIONS_LIMIT, Claim, ClaimEvent, Edition, Fate, Frame, KnownKey, KnownUse, Limit,
        MAX_INTERFACES, MAX_KNOWN, MAX_QUARANTINE, MAX_SLOTS, Malformed, OwnedKey, QuarantineKey, RECENT_SLOTS,
        RING_BYTES, Recent, Report, Tapped, TappedPort, Verdict, is_plain_ipv4, may_carry_arp, read_plain_arp,
        read_plain_ipv4,
    };

    #[map]
    static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

    #[map]
    static CONTRADICTIONS: RingBuf = RingBuf::with_byte_size(CONTRADICTIONS_BYTES, 0);

    /// Not preallocated, as the others: memory is spent only on what there is.
    #[map]
    static PORTS: PerCpuHashMap<u32, TappedPort> = PerCpuHashMap::with_max_entries(MAX_INTERFACES, BPF_F_NO_PREALLOC);

    #[map]
    static PORT_SLOTS: PerCpuArray<TappedPort> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);

    #[map]
    static KNOWN: HashMap<KnownKey, KnownUse> = HashMap::with_max_entries(MAX_KNOWN, BPF_F_NO_PREALLOC);

    #[map]
    static OWNERS: HashMap<OwnedKey, u32> = HashMap::with_max_entries(MAX_KNOWN, BPF_F_NO_PREALLOC);

    #[map]
    static QUARANTINE: HashMap<QuarantineKey, u64> = HashMap::with_max_entries(MAX_QUARANTINE, BPF_F_NO_PREALLOC);

    #[map]
    static EDITION: Array<u64> = Array::with_max_entries(1, 0);

    #[map]
    static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(RECENT_SLOTS, 0);

    #[expect(unsafe_code, reason = "the agent looks for the global by this name")]
    #[unsafe(no_mangle)]
    static NEWS_LIMIT: Global<Limit> = Global::new(Limit::OFF);

    /// What the kernel goes by when it lets a program call helpers that are for GPL programs only.
    #[expect(unsafe_code, reason = "the kernel looks for the licence in a section of this name")]
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// Looks at ARP.
    #[classifier]
    fn dupip_arp_tap(ctx: TcContext) -> i32 {
        let skb = Skb::<IGNORE>(ctx);
        if may_carry_arp(skb.protocol()) { answer(read_plain_arp(&skb, &skb)) } else { GO_ON }
    }

    /// Looks at ARP, and at the sources of IPv4 packets.
    #[classifier]
    fn dupip_ipv4_tap(ctx: TcContext) -> i32 {
        look_at_both(&Skb::<WATCH>(ctx))
    }

    /// Looks at ARP, and whether the sources of IPv4 packets are in quarantine.
    #[classifier]
    fn dupip_guard_tap(ctx: TcContext) -> i32 {
        look_at_both(&Skb::<GUARD>(ctx))
    }

    #[inline(always)]
    fn look_at_both<const IPV4: u8>(skb: &Skb<IPV4>) -> i32 {
        let protocol = skb.protocol();
        if is_plain_ipv4(protocol) {
            answer(read_plain_ipv4(skb, skb))
        } else if may_carry_arp(protocol) {
            answer(read_plain_arp(skb, skb))
        } else {
            GO_ON
        }
    }

    /// IPv4 says nothing.
    const IGNORE: u8 = 0;
    /// The source of an IPv4 packet may be in quarantine, and says nothing else.
    const GUARD: u8 = 1;
    /// The source of an IPv4 packet is a claim.
    const WATCH: u8 = 2;

    #[inline(always)]
    const fn answer(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass => GO_ON,
            Verdict::Drop => DROP,
        }
    }

    /// `TC_ACT_UNSPEC` lets the next program or filter run; TCX calls the same number `TCX_NEXT`
    /// (`include/uapi/linux/bpf.h`).
    const GO_ON: i32 = TC_ACT_UNSPEC;

    /// `TC_ACT_SHOT` ends the frame, and so does `TCX_DROP`, which is the same number.
    const DROP: i32 = TC_ACT_SHOT;

    /// A socket buffer, whose bytes may lie in several places, and what its program makes of IPv4.
    struct Skb<const IPV4: u8>(TcContext);

    impl<const IPV4: u8> Frame for Skb<IPV4> {
        #[inline(always)]
        fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.load(offset).ok()
        }

        /// Straight from the first part of the buffer, if it has them: a helper takes longer than all the rest.
        #[inline(always)]
        #[expect(unsafe_code, reason = "the buffer is known by two addresses")]
        fn bytes_at<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
            let (start, end) = (self.0.data() as *const u8, self.0.data_end() as *const u8);
            let bytes = start.wrapping_add(OFFSET);
            if bytes.wrapping_add(N) > end {
                return self.bytes(OFFSET);
            }
            // SAFETY: the verifier has seen the comparison, and knows that the bytes lie before the end.
            Some(unsafe { bytes.cast::<[u8; N]>().read_unaligned() })
        }

        #[inline(always)]
        fn taken_tag(&self) -> Option<u16> {
            let skb = self.fields();
            (skb.vlan_present != 0).then_some(skb.vlan_tci as u16)
        }
    }

    impl<const IPV4: u8> Report for Skb<IPV4> {
        #[inline(always)]
        fn arp(&self, claim: &Claim) -> Verdict {
            let Some(port) = self.port() else {
                return self.judge(claim);
            };
            let now = now();
            if claim.may_be_known() && self.absorb(claim, now) {
                port.counters.add_arp(claim.kind, Fate::Absorbed);
                return Verdict::Pass;
            }
            let verdict = self.judge(claim);
            let fate = self.report(port, claim, now);
            port.counters.add_arp(claim.kind, fate);
            port.counters.add_verdict(verdict);
            verdict
        }

        #[inline(always)]
        fn ipv4(&self, claim: &Claim) -> Verdict {
            if IPV4 == IGNORE || IPV4 == WATCH && self.is_marked(claim) {
                return Verdict::Pass;
            }
            let verdict = self.judge(claim);
            if IPV4 == GUARD && verdict == Verdict::Pass {
                return verdict;
            }
            if let Some(port) = self.port() {
                if IPV4 == WATCH {
                    let fate = self.report(port, claim, now());
                    port.counters.add_ipv4(fate);
                }
                port.counters.add_verdict(verdict);
            }
            verdict
        }

        #[inline(always)]
        fn disguised(&self, claim: &Claim) -> Verdict {
            self.judge(claim)
        }

        #[inline(always)]
        fn malformed(&self, reason: Malformed) {
            if let Some(port) = self.port() {
                port.counters.add_malformed(reason);
            }
            debug!(self.0, "malformed ARP on interface {}: {}", self.fields().ifindex, reason.as_str());
        }
    }

    impl<const IPV4: u8> Skb<IPV4> {
        #[inline(always)]
        #[expect(unsafe_code, reason = "the context is a raw pointer")]
        fn fields(&self) -> &__sk_buff {
            // SAFETY: the kernel hands the program a context that is valid until the program returns.
            unsafe { &*self.0.skb.skb }
        }

        /// The protocol is a big-endian 16-bit number in a 32-bit field.
        #[inline(always)]
        fn protocol(&self) -> u16 {
            u16::from_be(self.fields().protocol as u16)
        }

        /// What the tap has for this interface, on this CPU.
        #[inline(always)]
        #[expect(
            unsafe_code,
            clippy::mut_from_ref,
            reason = "a map's value is a raw pointer, to what is not the buffer's"
        )]
        fn port(&self) -> Option<&mut TappedPort> {
            let ifindex = self.fields().ifindex;
            // SAFETY: both values are this CPU's own, and the kernel keeps them until the program has returned. Traffic
            // control runs with bottom halves off, so no second run on this CPU is in them at the same time.
            let in_slot = PORT_SLOTS.get_ptr_mut(TappedPort::slot(ifindex)).map(|port| unsafe { &mut *port });
            if let Some(port) = in_slot.filter(|port| port.ifindex == ifindex) {
                return Some(port);
            }
            // SAFETY: as above.
            PORTS.get_ptr_mut(ifindex).map(|port| unsafe { &mut *port })
        }

        /// Whether the claim is known; that it was made is noted then.
        #[inline(always)]
        #[expect(unsafe_code, reason = "a map's value is a raw pointer")]
        fn absorb(&self, claim: &Claim, now: u64) -> bool {
            let Some(known) = KNOWN.get_ptr_mut(KnownKey::new(self.fields().ifindex, claim)) else {
                return false;
            };
            // SAFETY: the kernel keeps the value until the program has returned. Other CPUs write to it at the same time:
            // to the count by the same atomic addition, to the time whole, and whichever of theirs stays is right.
            unsafe {
                add_one(&raw mut (*known).hits);
                (&raw mut (*known).last_arp).write_volatile(now);
            }
            true
        }

        /// Whether the claim is known; that it was made in this epoch is noted then. Most frames of a bridge come by here, and
        /// most of them find that the one before them was looked up.
        ///
        /// The edition is asked for before the claim is looked up: if it is removed meanwhile, the next frame looks anew.
        #[inline(always)]
        #[expect(unsafe_code, reason = "a map's value is a raw pointer")]
        fn is_marked(&self, claim: &Claim) -> bool {
            let key = KnownKey::new(self.fields().ifindex, claim);
            let (Some(edition), Some(recent)) = (EDITION.get_ptr(0), RECENT.get_ptr_mut(Recent::slot(key))) else {
                return false;
            };
            // SAFETY: the kernel keeps the values until the program has returned. The edition is one whole word; what is
            // recent is this CPU's own, as in `port`.
            let (edition, recent) = unsafe { (Edition::from_word(edition.read_volatile()), &mut *recent) };
            let current = Recent::new(key, edition);
            if *recent == current {
                return true;
            }
            let Some(known) = KNOWN.get_ptr_mut(key) else {
                return false;
            };
            // SAFETY: the kernel keeps the value until the program has returned; other CPUs write the same to it.
            unsafe { (&raw mut (*known).epoch).write_volatile(edition.epoch) };
            *recent = current;
            true
        }

        /// Whether the claim, which is not known, is in quarantine; that it is dropped is counted then.
        ///
        /// Asks for no entry in `PORTS`: an agent that is gone may have left the program to guard the interface.
        #[inline(always)]
        #[expect(unsafe_code, reason = "a map's value is a raw pointer")]
        fn judge(&self, claim: &Claim) -> Verdict {
            if !claim.is_made() {
                return Verdict::Pass;
            }
            let key = QuarantineKey::new(self.fields().ifindex, claim.tag, claim.address);
            let Some(dropped) = QUARANTINE.get_ptr_mut(key) else {
                return Verdict::Pass;
            };
            // SAFETY: the kernel keeps the value until the program has returned; other CPUs add to it atomically, too.
            unsafe { add_one(dropped) };
            Verdict::Drop
        }

        #[inline(always)]
        fn report(&self, port: &mut TappedPort, claim: &Claim, now: u64) -> Fate {
            let contradicts = self.contradicts(port.bridge, claim);
            let is_let_through = port.news.take(now, NEWS_LIMIT.load())
                || contradicts && port.contradictions.take(now, CONTRADICTIONS_LIMIT);
            if !is_let_through {
                return Fate::Limited;
            }
            let event = ClaimEvent::new(Tapped { nanos: now, ifindex: self.fields().ifindex }, claim);
            // What does not fit where it is read first waits with the others.
            let is_reported = contradicts && CONTRADICTIONS.output::<ClaimEvent>(&event, 0).is_ok()
                || EVENTS.output::<ClaimEvent>(&event, 0).is_ok();
            if is_reported { Fate::Reported } else { Fate::Lost }
        }

        /// Whether the address is known to be somebody's at another port. Whoever floods must not hide that he lies.
        #[inline(always)]
        fn contradicts(&self, bridge: u32, claim: &Claim) -> bool {
            let owner = OWNERS.get_ptr(OwnedKey::new(bridge, claim.tag, claim.address));
            #[expect(unsafe_code, reason = "a map's value is a raw pointer")]
            // SAFETY: the kernel keeps the value until the program has returned, and it is one whole word.
            owner.is_some_and(|owner| unsafe { owner.read_volatile() } != self.fields().ifindex)
        }
    }

    /// Adds atomically: Rust has no such operation for this machine, which knows how to add and, in its first versions, not
    /// how to compare and swap.
    ///
    /// # Safety
    /// `count` points to a number that lives, and that others change by atomic operations only.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the instruction has no other name")]
    unsafe fn add_one(count: *mut u64) {
        // SAFETY: the instruction writes to what the caller vouches for, and to nothing else.
        unsafe {
            asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1_u64, options(nostack))
        };
    }

    #[expect(unsafe_code, reason = "helpers are foreign functions")]
    fn now() -> u64 {
        // SAFETY: the helper takes nothing and returns a number.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    /// The verifier lets no program through that could get here.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
