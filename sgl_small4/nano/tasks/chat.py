"""Greetings, and polite replies to what so small a model cannot do."""

from random import Random

from sgl_small4.nano.tasks import words
from sgl_small4.nano.tasks.turns import Turn

ABLE = ("I can add numbers and answer questions about a document.",)
TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "Hello",
            "Hi",
            "Hi!",
            "Hello!",
            "Hey",
            "Good morning",
            "Good evening",
            "hello",
            "hi",
            "Hey there",
            "Hi there!",
        ),
        ("Hello! Ask me a sum or a question about a document.",),
    ),
    (("Thanks", "Thank you", "Thanks!", "Thank you!", "Thanks a lot."), ("You are welcome.",)),
    (("Bye", "Goodbye", "See you", "Bye!", "Good night"), ("Goodbye!",)),
    (
        ("How are you?", "How do you do?", "How is it going?"),
        ("I am fine. Ask me a sum or a question about a document.",),
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What can you do?",
            "Help",
            "help",
            "What is your name?",
            "Which model are you?",
        ),
        ("I am a very small model. I can add numbers and answer questions about a document.",),
    ),
)
BEYOND = (
    "Write a poem.",
    "Write a poem about the sea.",
    "Tell me a joke.",
    "What is the weather?",
    "What is the weather like today?",
    "Translate this.",
    "Translate this into French.",
    "Write some code.",
    "Write a program that sorts a list.",
    "Sing a song.",
    "Who is the president?",
    "Write a story about a dog.",
    "What is the capital of France?",
    "Explain gravity.",
    "Explain how a car works.",
    "Play chess with me.",
    "Draw a cat.",
    "What time is it?",
    "Who won the game?",
    "What is the meaning of life?",
    "Give me a recipe.",
    "Why is the sky blue?",
    "Summarise the news.",
    "Tell me about {name}.",
    "Write an email to {name}.",
    "Who was {name}?",
    "Where is {city}?",
    "How far is it to {city}?",
    "What is {city} famous for?",
    "Plan a trip to {city}.",
    "Tell me something about {item}.",
    "Do you like {item}?",
    "Write a song about {item}.",
)
CANNOT = "I can't do that. I can add numbers and answer questions about a document."


def turn(random: Random) -> Turn:
    if random.random() < 0.5:
        questions, answers = random.choice(TALK)
        return Turn(random.choice(questions), "Small talk.", random.choice(answers))
    asked = random.choice(BEYOND).format(
        name=words.person(random), city=words.city(random), item=random.choice(words.ITEMS)
    )
    return Turn(asked, "I can't do this.", CANNOT)
