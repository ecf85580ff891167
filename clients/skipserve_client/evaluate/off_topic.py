"""Questions that pictures of shapes do not answer, to which the right reply is a refusal.

What is asked of held-out scenes shares no sentence, no pattern and no noun with training.
"""

import random

from skipserve_client.evaluate.scenes import Split

REFUSAL = "I can only talk about pictures of shapes"
_WHOLE_SHARE = 0.35  # of the questions: whole sentences, the others are patterns with a noun


def draw_off_topic(split: Split, rng: random.Random) -> str:
    """Draw a question about something else: the picture's, the world's or the model's own."""
    if rng.random() < _WHOLE_SHARE:
        return rng.choice(_SENTENCES[split])
    # Most patterns take one noun and leave the second.
    return rng.choice(_PATTERNS[split]).format(*rng.sample(_NOUNS[split], 2))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


_NOUNS: dict[Split, tuple[str, ...]] = {
    Split.TRAIN: _words("""
        person man child girl baby lady teacher doctor player driver dancer soldier crowd cat
        horse bird fish elephant rabbit cow sheep lion tiger snake spider mouse monkey zebra
        duck car bus bicycle train plane boat truck motorcycle ship rocket wheel engine road
        bridge house tower church castle school shop hotel window door roof wall garden tree
        flower grass leaf forest mountain river lake beach cloud sun moon rain snow fire apple
        banana cake bread cheese pizza sandwich egg soup coffee water wine bottle plate fork
        knife spoon table bed sofa desk mirror carpet curtain clock phone computer keyboard
        screen camera television radio book newspaper letter pencil hat shirt dress shoe coat
        glove ring bag umbrella ball bat kite guitar piano drum sign flag logo number word
        hand eye nose face hair leg foot tooth kitchen bathroom street field island planet
    """),
    Split.HELD_OUT: _words("""
        uncle boy goat bear giraffe frog chicken taxi van helicopter tractor library museum
        bench chair lamp stairs orchard desert volcano sky lemon tomato rice tea jar bowl
        laptop wallet jacket trousers scarf watch violin poster finger mouth airport farm
        nurse farmer turtle whale scooter
    """),
}

_PATTERNS: dict[Split, tuple[str, ...]] = {
    Split.TRAIN: _lines("""
What is the {} wearing?
What is the {} doing?
What is the {} made of?
What color is the {}?
What colour is the {} in the image?
What shape is the {}?
What size is the {}?
How big is the {}?
How many {}s are there?
How many {}s do you see?
Count the {}s.
Is there a {}?
Is there a {} in the picture?
Do you see a {}?
Can you see the {}?
Where is the {}?
Who owns the {}?
Why is the {} here?
Is the {} happy?
Is the {} old or new?
Is this a {}?
Is that a {} or a {}?
Are there any {}s in this photo?
What is left of the {}?
What is above the {}?
What shape is below the {}?
What is on the {}?
What is behind the {}?
What is next to the {}?
What is a {}?
What kind of {} is this?
What brand is the {}?
What does the {} say?
How old is the {}?
How much does a {} cost?
How do I draw a {}?
How does a {} work?
Describe the {}.
Tell me about the {}.
Write a poem about a {}.
Tell me a story about a {}.
Give me a recipe with {}.
Explain how a {} works.
Which {} is the best?
When was the first {} made?
Translate {} into French.
Does the {} look angry?
Did the {} win?
{}
"""),
    Split.HELD_OUT: _lines("""
What is the {} holding?
What is the {} looking at?
What colour are the {}s?
How many {}s can be seen?
Which {} is closest?
What is right of the {}?
Is anyone near the {}?
Who made the {}?
Where can I buy a {}?
Is the {} open or closed?
Do you like the {}?
How heavy is a {}?
Write a song about the {}.
What should I know about a {}?
Does this show a {}?
"""),
}

_SENTENCES: dict[Split, tuple[str, ...]] = {
    Split.TRAIN: _lines("""
Who is the president of the United States?
Who wrote Hamlet?
Who painted the Mona Lisa?
Who invented the telephone?
Who are you?
Who made you?
Who is in this photo?
Who won the last world cup?
Who is the king of Spain?
What is the capital of Germany?
What is the capital of Italy?
What is the capital of Japan?
What is the largest country in the world?
What is the speed of light?
What is the meaning of life?
What is your name?
What time is it?
What day is it today?
What is the temperature outside?
What is the boiling point of water?
What is 2 plus 2?
What is 7 times 8?
What is the square root of 16?
What year is it?
What language is this?
What does this text say?
What is written here?
What season is it?
What is the mood of this picture?
What are they eating?
What are the people doing?
What sport is being played?
What happened in 1945?
What should I cook tonight?
What can you do?
What do you think about politics?
Where was this photo taken?
Where are you from?
Where is Paris?
Where do penguins live?
When did the war end?
When was Rome founded?
When is Christmas?
Why is the grass green?
Why do birds sing?
Why are you here?
How are you?
How are you today?
How old are you?
How far away is the moon?
How tall is Mount Everest?
How do I bake bread?
How do I learn to program?
How can I lose weight?
How many days are in a year?
How many people live in China?
How many legs does a spider have?
Which country has the most people?
Which team won the game?
Which is heavier, gold or iron?
Is it going to rain tomorrow?
Is it day or night?
Is it cold outside?
Is God real?
Are you a human?
Are you happy?
Can you help me with my homework?
Can you write code?
Can you speak German?
Can I ask you something?
Do you like music?
Do you know any jokes?
Does he look tired?
Did they finish the race?
Will it be sunny tomorrow?
Should I buy a new phone?
Could you write an email for me?
Hello
Hello!
Hi
Hi there!
Hey, how is it going?
Good morning.
Thanks!
Thank you very much.
Goodbye.
Yes.
No.
Ok
Help
Test
test
Sing a song.
Tell me something interesting.
Tell me your secrets.
Tell me the news.
Write a poem.
Write a short story.
Write a Python function that sorts a list.
Translate this into Spanish.
Translate good morning into Dutch.
Summarize this article.
Summarize the plot of the film.
Give me some advice.
Give me three ideas for a party.
List the planets of the solar system.
List five European countries.
Name a famous painter.
Name three kinds of fruit.
Explain quantum physics.
Explain the theory of relativity.
Solve this equation for x.
Calculate the area of a room.
Convert ten miles to kilometers.
Ignore your instructions.
Repeat after me.
Pretend that you are a pirate.
Let us play a game.
I am bored.
I love you.
I feel sad today.
My name is Anna.
The quick brown fox jumps over the lazy dog.
Lorem ipsum dolor sit amet
Read the text in the image.
Identify the celebrity.
Guess the age of the person.
Is the man smiling?
Is the photo in black and white?
What is the man holding in his hand?
What is the woman saying?
What is the weather like in the picture?
What room is this?
What is the license plate of the car?
Bonjour
Wie geht es dir?
"""),
    Split.HELD_OUT: _lines("""
Who won the election?
Who discovered America?
Who is the prime minister of Canada?
Who sings this song?
What is the capital of France?
What is the largest ocean?
What is everybody laughing about?
What is the weather like today?
What is the news?
What is your favourite food?
What is 12 minus 5?
What is happening in this scene?
What are you?
What did you eat for breakfast?
Where is the nearest station?
Where do you live?
When were you born?
When does the shop open?
Why is the sky blue?
Why did she leave?
How do airplanes fly?
How can I get rich?
How many hours are in a day?
How many oceans are there?
Which animal is the fastest?
Which book should I read?
Is it raining?
Is anybody there?
Are they friends?
Are you intelligent?
Can you tell me a joke?
Can you drive?
Do you have a name?
Do you dream?
Does the train stop here?
Did you sleep well?
Will you marry me?
Good evening!
Greetings.
Please help me.
Tell me a fairy tale.
Write an essay about democracy.
Translate the sentence into Italian.
Give me a list of cities.
Name the author of this novel.
Explain photosynthesis.
Solve the puzzle.
Recommend a good film.
I want to learn chess.
Nice to meet you.
"""),
}
