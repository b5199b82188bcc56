//! What a person who watches the demo reads.

/// Speaks, or is silent where only the facts are wanted.
#[derive(Clone, Copy)]
pub(super) struct Voice {
    pub(super) speaks: bool,
}

impl Voice {
    /// A new act.
    pub(super) fn act(self, letter: char, title: &str) {
        self.line(&format!("\n({letter}) {title}"));
    }

    /// One line of the story.
    pub(super) fn line(self, text: &str) {
        if self.speaks {
            println!("{text}");
        }
    }

    /// What a program printed, set off from the story.
    pub(super) fn quote(self, command: &str, output: &str) {
        self.line(&format!("      $ {command}"));
        output.lines().for_each(|line| self.line(&format!("      {line}")));
    }
}
