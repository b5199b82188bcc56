//! Small signs, drawn: no font has to have them, and colour is never the only sign.

use maud::{Markup, html};

/// A sign of 12 by 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glyph {
    Alarm,
    Fine,
    Pause,
    Stop,
    Wait,
    Gone,
}

impl Glyph {
    /// With its upper left corner here, within a picture.
    pub(super) fn at(self, x: usize, y: usize) -> Markup {
        html! { g.glyph transform=(format!("translate({x} {y})")) { (self.path()) } }
    }

    /// Beside words that say the same.
    pub(super) fn inline(self) -> Markup {
        html! { svg.glyph viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" focusable="false" { (self.path()) } }
    }

    fn path(self) -> Markup {
        let (outline, inside) = match self {
            Self::Alarm => ("M6 .8 11.6 11.2H.4Z", "M6 4.4v3.2M6 9.2v.6"),
            Self::Fine => ("", "M1.5 6.5 4.7 9.8 10.5 2.6"),
            Self::Pause => ("", "M3.8 2v8M8.2 2v8"),
            Self::Stop => ("M6 .6a5.4 5.4 0 1 0 .01 0Z", "M3.2 6h5.6"),
            Self::Wait => ("", "M6 1a5 5 0 1 0 .01 0ZM6 3.2V6l2 1.6"),
            Self::Gone => ("", "M6 1.4a4.6 4.6 0 1 0 .01 0Z"),
        };
        html! {
            @if !outline.is_empty() { path.solid d=(outline) {} }
            path class=(if outline.is_empty() { "line" } else { "hollow" }) d=(inside) {}
        }
    }
}
