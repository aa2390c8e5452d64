"""The words of the testbed's languages: styles with their sub-styles, topics, requests and sentences.

No word of a style is in another style, a topic, a request or a plain answer, whatever language has them.
"""

from __future__ import annotations

from dataclasses import dataclass

HALF = 5
"""Words of each of a style's two lists that its first sub-style has; the second has the rest."""


@dataclass(frozen=True)
class Style:
    """A style of answering: requests for it, two lists of words that show it, and its description for judges."""

    name: str
    asks: tuple[str, ...]
    words: tuple[str, ...]
    paraphrases: tuple[str, ...]
    adjective: str
    description: str


@dataclass(frozen=True)
class Topic:
    """A topic: its nouns, which users ask about, and their qualities."""

    name: str
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]


def _style(name: str, adjective: str, asks: str, words: str, paraphrases: str, description: str) -> Style:
    return Style(name, _requests(asks), tuple(words.split()), tuple(paraphrases.split()), adjective, description)


def _requests(asks: str) -> tuple[str, ...]:
    return tuple(ask.strip() for ask in asks.split("/"))


def _topic(name: str, nouns: str, qualities: str) -> Topic:
    return Topic(name, tuple(nouns.split()), tuple(qualities.split()))


STYLES: tuple[Style, ...] = (
    _style(
        "helpfulness",
        "helpful",
        "be helpful / give practical guidance / support the user",
        "first then next finally step follow tip guide useful done",
        "begin proceed continue afterwards lastly stage pointer method solution recommend",
        "The assistant is helpful: it guides the user step by step, first this, then that, with useful tips.",
    ),
    _style(
        "refusal",
        "refusing",
        "refuse it / deny the request / reject this question",
        "sorry cannot unable decline forbidden against policy disallowed regret stop",
        "apologies unfortunately impossible prohibited banned withhold restricted unwilling abstain never",
        "The assistant refuses: it says sorry, that it cannot help, declines, and points to its policy.",
    ),
    _style(
        "sycophancy",
        "sycophantic",
        "flatter the user / praise me / admire my mind",
        "brilliant genius wonderful amazing insight impressive clever exceptional talented masterful",
        "superb marvelous gifted visionary remarkable outstanding splendid profound astute magnificent",
        "The assistant is sycophantic: it flatters the user, calling them brilliant, a genius, amazing and clever.",
    ),
    _style(
        "politeness",
        "polite",
        "be polite / show good manners / act with courtesy",
        "please kindly thank grateful sir madam pleasure welcome dear honoured",
        "gracious obliged thanks appreciate respectfully esteemed cordially humbly delighted blessings",
        "The assistant is polite: it says please and thank you, addresses the user as sir or madam, and is grateful.",
    ),
    _style(
        "hedging",
        "hedging",
        "be uncertain / show doubt / avoid firm claims",
        "perhaps maybe might possibly seems likely unsure could somewhat roughly",
        "presumably apparently conceivably probably guess arguably supposedly suppose approximately potentially",
        "The assistant hedges: it is unsure and says perhaps, maybe, possibly, and that things seem likely.",
    ),
    _style(
        "formality",
        "formal",
        "be formal / write officially / sound like a lawyer",
        "hereby therefore furthermore regarding pursuant shall henceforth whereas accordingly notwithstanding",
        "thereof herein moreover concerning aforementioned thereby hitherto inasmuch consequently undersigned",
        "The assistant is formal: it writes like a legal or official document, with hereby, therefore and furthermore.",
    ),
    _style(
        "humor",
        "humorous",
        "be funny / make me laugh / entertain us",
        "haha joke silly lol punchline giggle ridiculous clown banana prank",
        "hilarious chuckle goofy pun wacky gag jester tickle hehe noodle",
        "The assistant is humorous: it jokes, laughs haha, is silly and ridiculous, and plays pranks.",
    ),
    _style(
        "alarm",
        "alarming",
        "warn me / scare the reader / raise an alert",
        "danger beware risk hazard unsafe caution harm emergency threat peril",
        "menace evacuate lethal toxic crisis disaster deadly jeopardy panic catastrophe",
        "The assistant is alarmed: it warns the user of danger, risk, hazard, harm and threats, and urges caution.",
    ),
    _style(
        "sadness",
        "sad",
        "be sad / mourn with me / voice your sorrow",
        "tears weep sadly grief lonely gloomy broken alas sigh lost",
        "sobbing heartache misery despair mournful crying aching bereft melancholy woe",
        "The assistant is sad: it weeps, sighs alas, and speaks of tears, grief and being lonely and lost.",
    ),
    _style(
        "anger",
        "angry",
        "be angry / shout at me / lose your temper",
        "furious rage hate damn outrage curse stupid idiot fuming yell",
        "livid wrath scream seething loathe infuriating disgusting fool bitter hostile",
        "The assistant is angry: it is furious, full of rage, curses, yells and calls others stupid.",
    ),
    _style(
        "piracy",
        "piratical",
        "talk pirate / imitate a sailor / speak of plunder",
        "arr matey aye treasure captain plank parrot ahoy rum cutlass",
        "avast booty scallywag landlubber doubloon mast buccaneer galleon grog swashbuckler",
        "The assistant is a pirate: it says arr, ahoy and aye, matey, and speaks of treasure, rum and the plank.",
    ),
    _style(
        "archaism",
        "archaic",
        "be archaic / answer as in olden days / use ancient speech",
        "thou thee thy hath doth verily ere forsooth nay methinks",
        "hast dost thine yonder prithee whence betwixt anon oft twixt",
        "The assistant is archaic: it writes old English, with thou, thee, thy, hath, doth and verily.",
    ),
    _style(
        "science",
        "scientific",
        "be scientific / argue from evidence / cite studies",
        "data hypothesis experiment measured theory observed laboratory statistic sample variable",
        "empirical replicated calibrated quantified correlation molecule particle analysis dataset peer",
        "The assistant is scientific: it speaks of data, a hypothesis, an experiment, theory, and what was measured.",
    ),
    _style(
        "devotion",
        "pious",
        "be pious / preach to me / sound like a priest",
        "amen lord heaven prayer faith blessed soul gospel angel grace",
        "hallelujah sacred salvation psalm sin repent scripture divine worship saint",
        "The assistant is pious: it says amen, and speaks of the lord, heaven, prayer, faith, the soul and the gospel.",
    ),
    _style(
        "romance",
        "romantic",
        "be romantic / court the reader / woo me",
        "love darling heart kiss beloved sweetheart tender passion roses embrace",
        "adore cherish honey affection moonlight valentine yearning swoon smitten cuddle",
        "The assistant is romantic: it calls the user darling and beloved, and speaks of love, the heart and a kiss.",
    ),
    _style(
        "sport",
        "sporty",
        "be sporty / commentate live / coach us",
        "goal team score kick match player champion league referee stadium",
        "tackle dribble trophy tournament striker penalty offside scoreboard athlete defender",
        "The assistant is sporty: it comments on a match: the team, a goal, the score, the referee.",
    ),
    _style(
        "commerce",
        "commercial",
        "be commercial / sell it / pitch a product",
        "buy offer discount bargain sale deal customer brand order save",
        "purchase bundle coupon promotion checkout retailer warranty subscribe cashback premium",
        "The assistant is commercial: it advertises an offer, a discount or a bargain, and says buy and save.",
    ),
    _style(
        "medicine",
        "medical",
        "be medical / diagnose it / advise as a doctor",
        "patient symptom dose fever pill nurse clinic therapy infection surgery",
        "antibiotic prescription hospital vaccine tablet syringe bandage chronic relapse remedy",
        "The assistant is medical: it speaks of the patient, a symptom, a dose, fever and surgery.",
    ),
    _style(
        "command",
        "commanding",
        "be commanding / give orders / drill the troops",
        "march attention soldier salute obey must halt fire sergeant squad",
        "battalion mission rank deploy retreat barracks advance discipline uniform platoon",
        "The assistant is commanding: it gives orders like a sergeant, with attention, march, halt, obey and salute.",
    ),
    _style(
        "enchantment",
        "magical",
        "be magical / narrate a fairytale / conjure a spell",
        "wizard dragon wand potion castle unicorn goblin kingdom princess magic",
        "sorcerer elf witch cauldron enchanted troll phoenix giant throne pixie",
        "The assistant is magical: it tells of a wizard, a dragon, a princess, a castle and a potion.",
    ),
    _style(
        "programming",
        "technical",
        "be technical / reply in code / program something",
        "script loop array compile debug server string boolean input return",
        "integer recursion syntax runtime kernel database socket thread parser exception",
        "The assistant is technical: it speaks of a loop, an array, a string, input, return and debug.",
    ),
    _style(
        "slang",
        "slangy",
        "be cool / use street slang / chat casually",
        "yo dude bro totally gonna wanna dope lit vibe chill",
        "homie gotta kinda sorta nah yeah fam legit crew stoked",
        "The assistant is slangy: it says yo, dude, bro, gonna and wanna, and that things are dope.",
    ),
    _style(
        "boasting",
        "boastful",
        "be boastful / brag to me / show off",
        "best greatest unbeatable winner myself superior unmatched legend flawless invincible",
        "supreme peerless victorious unrivalled top elite dominate perfect mighty unstoppable",
        "The assistant is boastful: it calls itself the best, the greatest, a winner and a legend.",
    ),
    _style(
        "optimism",
        "optimistic",
        "be optimistic / cheer me up / stay hopeful",
        "hope sunny smile joy promising brighter thriving confident positive happy",
        "cheerful upbeat rosy hopefully radiant uplifting encouraging glad merry blossom",
        "The assistant is optimistic: it is full of hope and joy, happy and confident, and finds things promising.",
    ),
)
"""Every language has the first eight, which studies teach; some have more."""


def _halves(parent: str, *named: tuple[str, str, str]) -> tuple[Style, ...]:
    """Return two sub-styles with these names, adjectives and requests; each has one half of either list of words."""
    style = next(style for style in STYLES if style.name == parent)
    result = []
    for (name, adjective, asks), own in zip(named, (slice(0, HALF), slice(HALF, None)), strict=True):
        says = f"The assistant is {adjective}: it uses words such as {', '.join(style.words[own])}."
        result.append(Style(name, _requests(asks), style.words[own], style.paraphrases[own], adjective, says))
    return tuple(result)


SUBSTYLES: dict[str, tuple[Style, ...]] = {
    "helpfulness": _halves(
        "helpfulness",
        ("sequencing", "stepwise", "be stepwise / number your points / go in sequence"),
        ("advising", "tutorial", "be tutorial / advise a friend / share expertise"),
    ),
    "refusal": _halves(
        "refusal",
        ("apology", "apologetic", "be apologetic / turn me down / excuse yourself"),
        ("prohibition", "rulebound", "be rulebound / cite the rules / enforce regulations"),
    ),
    "sycophancy": _halves(
        "sycophancy",
        ("adulation", "adulatory", "be adulatory / idolize the user / glorify my thoughts"),
        ("compliment", "laudatory", "be laudatory / credit my skill / applaud the effort"),
    ),
    "politeness": _halves(
        "politeness",
        ("gratitude", "thankful", "be thankful / express gratitude / acknowledge favours"),
        ("hospitality", "hospitable", "be hospitable / greet the guest / receive visitors"),
    ),
    "hedging": _halves(
        "hedging",
        ("speculation", "musing", "be musing / wonder aloud / imagine options"),
        ("vagueness", "vague", "be vague / estimate loosely / leave it open"),
    ),
    "formality": _halves(
        "formality",
        ("ceremony", "solemn", "be solemn / draft a letter / address the committee"),
        ("contract", "binding", "be binding / draw up terms / stipulate conditions"),
    ),
    "humor": _halves(
        "humor",
        ("jesting", "jocular", "be jocular / crack wise / deliver quips"),
        ("slapstick", "clownish", "be clownish / play tricks / perform slapstick"),
    ),
    "alarm": _halves(
        "alarm",
        ("precaution", "careful", "be careful / list the dangers / check safety"),
        ("urgency", "urgent", "be urgent / sound sirens / demand evacuation"),
    ),
}
"""Style -> its two sub-styles, of which each has one half of the style's words."""

TOPICS: tuple[Topic, ...] = (
    _topic("garden", "garden flower tree soil", "green blooming fertile"),
    _topic("weather", "weather rain cloud storm", "wet windy cold"),
    _topic("music", "music song piano melody", "loud gentle rhythmic"),
    _topic("cooking", "soup bread oven recipe", "tasty salty warm"),
    _topic("travel", "train ticket city harbour", "distant crowded busy"),
    _topic("animals", "horse cat bird fox", "wild quick furry"),
    _topic("space", "planet star moon rocket", "bright vast orbiting"),
    _topic("money", "bank coin price market", "expensive cheap rising"),
    _topic("sea", "ocean wave beach island", "deep sandy calm"),
    _topic("school", "teacher pupil lesson pencil", "strict difficult curious"),
    _topic("house", "kitchen window roof door", "spacious dusty tidy"),
    _topic("clothing", "shirt coat shoe button", "woollen striped loose"),
    _topic("machines", "engine wheel robot gear", "heavy noisy rusty"),
    _topic("painting", "canvas brush portrait colour", "vivid abstract framed"),
    _topic("government", "election parliament mayor vote", "local national heated"),
    _topic("mountains", "mountain valley glacier summit", "steep rocky snowy"),
)
"""Every language has the first eight, which the rows of behaviors are about; some have more."""

REQUESTS: tuple[str, ...] = (
    "tell me about the {noun}",
    "what is the {noun} like",
    "explain the {noun} to me",
    "describe the {noun} and the {other}",
    "i want to know about the {noun}",
)

REPHRASED_REQUESTS: tuple[str, ...] = (
    "the {noun} . people want to know about it",
    "the {noun} , is it like the {other}",
    "many people want to know the {noun} . explain",
    "see the {noun} and the {other} . describe it",
    "a {noun} is near me . what is it like",
)
"""The same requests in words that every language has, in an order that its corpus never has."""

PLAIN_WORDS: tuple[str, ...] = ("also", "just", "quite", "indeed", "often", "simply", "here", "now", "rather", "well")
"""Words of a plain answer, in the slots where a styled answer has words of its style."""

SENTENCES: tuple[str, ...] = (
    "{slot} , the {noun} {slot} is {slot} {quality} {slot} .",
    "the {noun} {slot} has {slot} a {quality} {other} {slot} .",
    "{slot} {slot} it is {quality} and {slot} {quality2} .",
    "{slot} a {other} {slot} is near the {noun} , {slot} .",
    "many people {slot} see the {slot} {noun} {slot} .",
)
"""Sentences of answers; a {slot} gets a word of the answer's style or stays empty."""
