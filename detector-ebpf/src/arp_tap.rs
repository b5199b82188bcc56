//! The ARP tap: a traffic control program that reports every ARP claim and touches no frame.
//!
//! It sits at the ingress of each bridge port and at the egress of the bridge device, and always answers "go on", so that
//! whatever stands behind it runs as if it were not there.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod tap {
    use aya_ebpf::{
        bindings::{__sk_buff, BPF_F_NO_PREALLOC, TC_ACT_UNSPEC},
        helpers::bpf_ktime_get_boot_ns,
        macros::{classifier, map},
        maps::{PerCpuHashMap, RingBuf},
        programs::TcContext,
    };
    use aya_log_ebpf::debug;
    use detector_ebpf::{
        Arp, ArpEvent, Frame, MAX_INTERFACES, Malformed, RING_BYTES, Report, TapCounters, Tapped, may_carry_arp,
        read_frame,
    };

    #[map]
    static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

    /// Not preallocated: an entry that the agent removes is then not given to another interface while a program still
    /// counts in it (`kernel/bpf/hashtab.c`), and memory is spent only on interfaces that there are.
    #[map]
    static COUNTERS: PerCpuHashMap<u32, TapCounters> =
        PerCpuHashMap::with_max_entries(MAX_INTERFACES, BPF_F_NO_PREALLOC);

    /// What the kernel goes by when it lets a program call helpers that are for GPL programs only.
    #[expect(unsafe_code, reason = "the kernel looks for the licence in a section of this name")]
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// `TC_ACT_UNSPEC` lets the next program or filter run; TCX calls the same number `TCX_NEXT`
    /// (`include/uapi/linux/bpf.h`).
    #[classifier]
    fn dupip_arp_tap(ctx: TcContext) -> i32 {
        // The protocol is a big-endian 16-bit number in a 32-bit field.
        if may_carry_arp(u16::from_be(ctx.skb.protocol() as u16)) {
            let skb = Skb(ctx);
            read_frame(&skb, &skb);
        }
        TC_ACT_UNSPEC
    }

    /// A socket buffer, whose bytes may lie in several places.
    struct Skb(TcContext);

    impl Frame for Skb {
        #[inline(always)]
        fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.load(offset).ok()
        }

        #[inline(always)]
        fn taken_tag(&self) -> Option<u16> {
            let skb = self.fields();
            (skb.vlan_present != 0).then_some(skb.vlan_tci as u16)
        }
    }

    impl Report for Skb {
        #[inline(always)]
        fn claim(&self, arp: &Arp) {
            let event = ArpEvent::new(Tapped { nanos: now(), ifindex: self.fields().ifindex }, arp);
            match EVENTS.output::<ArpEvent>(&event, 0) {
                Ok(()) => self.count(|counters| counters.reported += 1),
                Err(_) => self.count(|counters| counters.lost += 1),
            }
        }

        #[inline(always)]
        fn malformed(&self, reason: Malformed) {
            self.count(|counters| counters.add_malformed(reason));
            debug!(self.0, "malformed ARP on interface {}: {}", self.fields().ifindex, reason.as_str());
        }
    }

    impl Skb {
        #[inline(always)]
        #[expect(unsafe_code, reason = "the context is a raw pointer")]
        fn fields(&self) -> &__sk_buff {
            // SAFETY: the kernel hands the program a context that is valid until the program returns.
            unsafe { &*self.0.skb.skb }
        }

        #[inline(always)]
        #[expect(unsafe_code, reason = "a map's value is a raw pointer")]
        fn count(&self, add: impl FnOnce(&mut TapCounters)) {
            if let Some(counters) = COUNTERS.get_ptr_mut(self.fields().ifindex) {
                // SAFETY: the value is this CPU's own, and the kernel keeps it until the program has returned. Traffic
                // control runs with bottom halves off, so no second run on this CPU is in it at the same time.
                add(unsafe { &mut *counters });
            }
        }
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
