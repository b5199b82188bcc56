//! What the tap is measured beside: programs that do nothing, as little as can be, and the least that tells anybody.
//!
//! `cargo xtask bench` attaches them in the tap's place. The agent does not carry them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod yardsticks {
    use aya_ebpf::{
        bindings::TC_ACT_UNSPEC,
        helpers::bpf_ktime_get_boot_ns,
        macros::{classifier, map},
        maps::RingBuf,
        programs::TcContext,
    };
    use detector_ebpf::{Claim, ClaimEvent, Frame, Malformed, RING_BYTES, Report, Tapped, Verdict, read_frame};

    const ARP: u16 = 0x0806;

    #[map]
    static HEARD: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

    #[expect(unsafe_code, reason = "the kernel looks for the licence in a section of this name")]
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// Costs what it costs to have a program at all.
    #[classifier]
    const fn yardstick_empty(_: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    /// Looks at the EtherType that the kernel has, and does as much whatever it is.
    #[classifier]
    fn yardstick_ethertype(ctx: TcContext) -> i32 {
        if protocol(&ctx) == ARP { TC_ACT_UNSPEC } else { -1 }
    }

    /// Tells of every ARP frame, and does nothing else.
    #[classifier]
    fn yardstick_reader(ctx: TcContext) -> i32 {
        if protocol(&ctx) == ARP {
            let heard = Heard(ctx);
            let _: Verdict = read_frame(&heard, &heard);
        }
        TC_ACT_UNSPEC
    }

    /// The protocol is a big-endian 16-bit number in a 32-bit field.
    #[inline(always)]
    fn protocol(ctx: &TcContext) -> u16 {
        // SAFETY: the kernel hands the program a context that is valid until the program returns.
        #[expect(unsafe_code, reason = "the context is a raw pointer")]
        let protocol = unsafe { (*ctx.skb.skb).protocol };
        u16::from_be(protocol as u16)
    }

    struct Heard(TcContext);

    impl Frame for Heard {
        #[inline(always)]
        fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.load(offset).ok()
        }

        #[inline(always)]
        fn taken_tag(&self) -> Option<u16> {
            None
        }
    }

    impl Report for Heard {
        #[inline(always)]
        fn arp(&self, claim: &Claim) -> Verdict {
            // SAFETY: the helper takes nothing and returns a number.
            #[expect(unsafe_code, reason = "helpers are foreign functions")]
            let nanos = unsafe { bpf_ktime_get_boot_ns() };
            let _full = HEARD.output::<ClaimEvent>(&ClaimEvent::new(Tapped { nanos, ifindex: 0 }, claim), 0);
            Verdict::Pass
        }

        #[inline(always)]
        fn ipv4(&self, _: &Claim) -> Verdict {
            Verdict::Pass
        }

        #[inline(always)]
        fn malformed(&self, _: Malformed) {}
    }

    /// The verifier lets no program through that could get here.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
