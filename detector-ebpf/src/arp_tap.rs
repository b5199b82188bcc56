//! tap
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#[cfg(target_arch = "bpf")]
mod p {
    use aya_ebpf::{
        macros::{classifier, map},
        maps::RingBuf,
        programs::TcContext,
    };
    #[map]
    static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);
    #[classifier]
    pub fn arp_tap(ctx: TcContext) -> i32 {
        if let Some(mut e) = EVENTS.reserve::<u64>(0) {
            e.write(ctx.len() as u64);
            e.submit(0);
        }
        0
    }
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}
#[cfg(not(target_arch = "bpf"))]
fn main() {}
