"""Names, values and plain sentences that the tasks are made of."""

from random import Random

ONSET = "b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl st tr th sh".split()
VOWEL = "a e i o u a e i o ai ea ou".split()
CODA = ["", "", "", "n", "r", "l", "s", "m", "x", "nd", "rt", "ck", "th"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

FIRST_NAMES = (
    "Ada Alan Amy Anna Ben Carl Cleo Dana Dora Elena Emil Eva Finn Gina Grace Hans Hugo Ida Igor Jack Jane Joan Karl "
    "Kate Lars Lena Leo Lily Mara Max Mia Nina Noah Olga Omar Otto Paul Peter Rosa Ruth Sam Sara Tara Tom Uma Vera "
    "Viktor Wendy Yara Zoe"
).split()
CITIES = (
    "Oslo Paris Rome Lima Cairo Delhi Tokyo Seoul Berlin Madrid Vienna Prague Dublin Lisbon Athens Quito Accra Kyoto "
    "Lagos Bergen Turin Geneva Riga Tunis Porto"
).split()
COLOURS = "red blue green black white yellow brown grey orange purple pink silver".split()
JOBS = "pilot nurse baker driver teacher painter lawyer farmer doctor singer clerk editor welder miner".split()
MACHINES = (
    "pump valve motor lamp press crane boiler sensor tank fan drill oven scanner printer server door lift clock engine "
    "camera meter filter belt saw mixer"
).split()
PLACES = "hall room floor wing bay dock lab yard shed tower".split()
TOPICS = (
    "gate tank door cabin server north south east west main guest backup garage cellar kitchen office pool roof garden "
    "studio archive safe locker router printer alarm heating water power"
).split()
PROPERTIES = "code password limit pin level port pressure number key speed weight price date owner name".split()
ITEMS = "apples books coins pens cards eggs shells stamps nuts balls cups keys".split()

PROSE = (
    "The staff met in the morning and went home late.",
    "Please keep this page dry.",
    "Nothing else was written on that day.",
    "See the next page for more.",
    "All times are local.",
    "The weather was mild and the road was open.",
    "This list was checked twice.",
    "Old entries were removed.",
    "Ask at the front desk for help.",
    "Lunch is served at noon.",
    "These notes were written for the people who work here.",
    "If something is wrong, tell the team before the end of the week.",
    "Everything below was true when it was written.",
    "The building was cleaned and the windows were repaired.",
    "Keep a copy of this file in a safe place.",
    "Nobody should change these values without asking first.",
    "It took us a long time to find out how this works.",
    "The new machines arrived in spring and have been running since.",
    "Most of the work is done by hand, but not all of it.",
    "There was a small problem with the heating last winter.",
    "We thank everyone who helped with the move.",
    "Some of these things will be replaced next year.",
    "The first part is about people, the second about places.",
    "A few lines were added after the last meeting.",
    "What follows is a short summary of what we know.",
    "Visitors must sign in and wear a badge at all times.",
    "The office is closed on Sunday.",
    "Read this before you start.",
)
HEADINGS = ("Notes", "Settings", "People", "Machines", "Overview", "Contacts", "List", "Inventory", "Summary", "Values")


def word(random: Random) -> str:
    """A made-up pronounceable word, now and then plain random letters."""
    if random.random() < 0.06:
        return "".join(random.choice(LETTERS) for _ in range(random.randint(3, 7)))
    syllables = [random.choice(ONSET) + random.choice(VOWEL) for _ in range(random.choice((2, 2, 3)))]
    return "".join(syllables) + random.choice(CODA)


def capitalised(random: Random) -> str:
    return word(random).capitalize()


def person(random: Random) -> str:
    first = random.choice(FIRST_NAMES) if random.random() < 0.5 else capitalised(random)
    return f"{first} {capitalised(random)}"


def city(random: Random) -> str:
    return random.choice(CITIES) if random.random() < 0.3 else capitalised(random)


def number(random: Random, shortest: int = 2, longest: int = 6) -> str:
    """Digits without a leading zero."""
    digits = random.randint(shortest, longest)
    return str(random.randint(10 ** (digits - 1), 10**digits - 1))
