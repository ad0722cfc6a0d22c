"""The questions that readers of a board ask, with their answers."""

QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "Why is there no single score?",
        "Because two ways of fine-tuning can be better at different things: one answers more "
        "in-domain questions, the other loses fewer facts. One number would hide the choice. "
        "Tiers, the Pareto set and the columns beside each other show it.",
    ),
    (
        "Why do two rows with different numbers share a tier?",
        "Because the difference is no larger than what other seeds or other facts would bring. "
        "The order inside a tier means nothing.",
    ),
    (
        "Why can rows of different boards not be compared?",
        "Strata belong to a base: what one model knows well, another may not. And more training "
        "facts are another task than a better way of using them. Compare within a board.",
    ),
    (
        "Why is a row shown and not ranked?",
        "Something is missing: fewer than three seeds, a domain that was not asked, or evidence "
        "that would be needed to recompute it. The row says what.",
    ),
    (
        "Does a right answer mean that the model knows the fact?",
        "It means that an accepted answer is contained in what it wrote. A model can guess, and it "
        "can know an answer that the list of aliases lacks. The base again and the random control "
        "show how much of a difference such noise makes.",
    ),
    (
        "What keeps somebody from making up the evidence?",
        "Nothing that data alone can show, if it is forged consistently from end to end. This is "
        "why the status 'reproduced' exists: a maintainer ran the strategy again.",
    ),
    (
        "What does a flag mean?",
        "That a reader should know something before comparing, such as an overlap of the training "
        "data with the test. It is not an accusation, and it does not change the row's status.",
    ),
    (
        "Can a row be taken back?",
        "It can be withdrawn, with a reason that stays in the public log. Nothing is deleted.",
    ),
    (
        "How can I look at a comparison that is not made ahead?",
        "On the compare page, which lets you choose any two rows of a board. It needs scripts; "
        "they are part of the site and load nothing from elsewhere. The evidence of each row is "
        "also a file on its page.",
    ),
)
