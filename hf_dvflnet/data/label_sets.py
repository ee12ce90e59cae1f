"""
Class names of the data sets that published checkpoints know, in the order of their ids.

An order is part of a checkpoint: with another one every answer is wrong, and nothing else tells.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class LabelSet(NamedTuple):
    """Class names in the order of their ids, and where that order is from."""

    names: tuple[str, ...]
    source: str


def read_labels(labels: str | Path) -> LabelSet:
    """
    A label set by its name, or a text file of one class name a line, line number - 1 being the id.

    Raises:
        ValueError: If `labels` is neither, or a name is empty or given twice.
    """
    if str(labels) in LABEL_SETS:
        return LABEL_SETS[str(labels)]
    path = Path(labels)
    if not path.is_file():
        raise ValueError(f"{labels} is no file and none of the label sets {', '.join(LABEL_SETS)}")
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text: a label file holds one class name a line") from error
    names = [name.strip() for name in names]
    refuse_bad_names(names, str(path))
    return LabelSet(tuple(names), f"the file {path.name}")


def refuse_bad_names(names: Sequence[str], where: str):
    """Raise `ValueError` if there are no names, or one is empty or given twice; `where` begins the message."""
    if not names:
        raise ValueError(f"{where}: holds no class names; one a line is expected")
    lines: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{where}: line {line} is empty; one class name a line is expected")
        if name in lines:
            raise ValueError(f"{where}: {name!r} stands in line {lines[name]} and again in line {line}")
        lines[name] = line


_UCF50 = """\
BaseballPitch
Basketball
BenchPress
Biking
Billiards
BreastStroke
CleanAndJerk
Diving
Drumming
Fencing
GolfSwing
HighJump
HorseRace
HorseRiding
HulaHoop
JavelinThrow
JugglingBalls
JumpRope
JumpingJack
Kayaking
Lunges
MilitaryParade
Mixing
Nunchucks
PizzaTossing
PlayingGuitar
PlayingPiano
PlayingTabla
PlayingViolin
PoleVault
PommelHorse
PullUps
Punch
PushUps
RockClimbingIndoor
RopeClimbing
Rowing
SalsaSpin
SkateBoarding
Skiing
Skijet
SoccerJuggling
Swing
TaiChi
TennisSwing
ThrowDiscus
TrampolineJumping
VolleyballSpiking
WalkingWithDog
YoYo
""".splitlines()

_UCF101_SORTED = """\
ApplyEyeMakeup
ApplyLipstick
Archery
BabyCrawling
BalanceBeam
BandMarching
BaseballPitch
Basketball
BasketballDunk
BenchPress
Biking
Billiards
BlowDryHair
BlowingCandles
BodyWeightSquats
Bowling
BoxingPunchingBag
BoxingSpeedBag
BreastStroke
BrushingTeeth
CleanAndJerk
CliffDiving
CricketBowling
CricketShot
CuttingInKitchen
Diving
Drumming
Fencing
FieldHockeyPenalty
FloorGymnastics
FrisbeeCatch
FrontCrawl
GolfSwing
Haircut
HammerThrow
Hammering
HandstandPushups
HandstandWalking
HeadMassage
HighJump
HorseRace
HorseRiding
HulaHoop
IceDancing
JavelinThrow
JugglingBalls
JumpRope
JumpingJack
Kayaking
Knitting
LongJump
Lunges
MilitaryParade
Mixing
MoppingFloor
Nunchucks
ParallelBars
PizzaTossing
PlayingCello
PlayingDaf
PlayingDhol
PlayingFlute
PlayingGuitar
PlayingPiano
PlayingSitar
PlayingTabla
PlayingViolin
PoleVault
PommelHorse
PullUps
Punch
PushUps
Rafting
RockClimbingIndoor
RopeClimbing
Rowing
SalsaSpin
ShavingBeard
Shotput
SkateBoarding
Skiing
Skijet
SkyDiving
SoccerJuggling
SoccerPenalty
StillRings
SumoWrestling
Surfing
Swing
TableTennisShot
TaiChi
TennisSwing
ThrowDiscus
TrampolineJumping
Typing
UnevenBars
VolleyballSpiking
WalkingWithDog
WallPushups
WritingOnBoard
YoYo
""".splitlines()

_HMDB51 = """\
brush_hair
cartwheel
catch
chew
clap
climb
climb_stairs
dive
draw_sword
dribble
drink
eat
fall_floor
fencing
flic_flac
golf
handstand
hit
hug
jump
kick
kick_ball
kiss
laugh
pick
pour
pullup
punch
push
pushup
ride_bike
ride_horse
run
shake_hands
shoot_ball
shoot_bow
shoot_gun
sit
situp
smile
smoke
somersault
stand
swing_baseball
sword
sword_exercise
talk
throw
turn
walk
wave
""".splitlines()

_SSV2 = """\
Approaching something with your camera
Attaching something to something
Bending something so that it deforms
Bending something until it breaks
Burying something in something
Closing something
Covering something with something
Digging something out of something
Dropping something behind something
Dropping something in front of something
Dropping something into something
Dropping something next to something
Dropping something onto something
Failing to put something into something because something does not fit
Folding something
Hitting something with something
Holding something
Holding something behind something
Holding something in front of something
Holding something next to something
Holding something over something
Laying something on the table on its side, not upright
Letting something roll along a flat surface
Letting something roll down a slanted surface
Letting something roll up a slanted surface, so it rolls back down
Lifting a surface with something on it but not enough for it to slide down
Lifting a surface with something on it until it starts sliding down
Lifting something up completely without letting it drop down
Lifting something up completely, then letting it drop down
Lifting something with something on it
Lifting up one end of something without letting it drop down
Lifting up one end of something, then letting it drop down
Moving away from something with your camera
Moving part of something
Moving something across a surface until it falls down
Moving something across a surface without it falling down
Moving something and something away from each other
Moving something and something closer to each other
Moving something and something so they collide with each other
Moving something and something so they pass each other
Moving something away from something
Moving something away from the camera
Moving something closer to something
Moving something down
Moving something towards the camera
Moving something up
Opening something
Picking something up
Piling something up
Plugging something into something
Plugging something into something but pulling it right out as you remove your hand
Poking a hole into some substance
Poking a hole into something soft
Poking a stack of something so the stack collapses
Poking a stack of something without the stack collapsing
Poking something so it slightly moves
Poking something so lightly that it doesn't or almost doesn't move
Poking something so that it falls over
Poking something so that it spins around
Pouring something into something
Pouring something into something until it overflows
Pouring something onto something
Pouring something out of something
Pretending or failing to wipe something off of something
Pretending or trying and failing to twist something
Pretending to be tearing something that is not tearable
Pretending to close something without actually closing it
Pretending to open something without actually opening it
Pretending to pick something up
Pretending to poke something
Pretending to pour something out of something, but something is empty
Pretending to put something behind something
Pretending to put something into something
Pretending to put something next to something
Pretending to put something on a surface
Pretending to put something onto something
Pretending to put something underneath something
Pretending to scoop something up with something
Pretending to spread air onto something
Pretending to sprinkle air onto something
Pretending to squeeze something
Pretending to take something from somewhere
Pretending to take something out of something
Pretending to throw something
Pretending to turn something upside down
Pulling something from behind of something
Pulling something from left to right
Pulling something from right to left
Pulling something onto something
Pulling something out of something
Pulling two ends of something but nothing happens
Pulling two ends of something so that it gets stretched
Pulling two ends of something so that it separates into two pieces
Pushing something from left to right
Pushing something from right to left
Pushing something off of something
Pushing something onto something
Pushing something so it spins
Pushing something so that it almost falls off but doesn't
Pushing something so that it falls off the table
Pushing something so that it slightly moves
Pushing something with something
Putting number of something onto something
Putting something and something on the table
Putting something behind something
Putting something in front of something
Putting something into something
Putting something next to something
Putting something on a flat surface without letting it roll
Putting something on a surface
Putting something on the edge of something so it is not supported and falls down
Putting something onto a slanted surface but it doesn't glide down
Putting something onto something
Putting something onto something else that cannot support it so it falls down
Putting something similar to other things that are already on the table
Putting something that can't roll onto a slanted surface, so it slides down
Putting something that can't roll onto a slanted surface, so it stays where it is
Putting something that cannot actually stand upright upright on the table, so it falls on its side
Putting something underneath something
Putting something upright on the table
Putting something, something and something on the table
Removing something, revealing something behind
Rolling something on a flat surface
Scooping something up with something
Showing a photo of something to the camera
Showing something behind something
Showing something next to something
Showing something on top of something
Showing something to the camera
Showing that something is empty
Showing that something is inside something
Something being deflected from something
Something colliding with something and both are being deflected
Something colliding with something and both come to a halt
Something falling like a feather or paper
Something falling like a rock
Spilling something behind something
Spilling something next to something
Spilling something onto something
Spinning something so it continues spinning
Spinning something that quickly stops spinning
Spreading something onto something
Sprinkling something onto something
Squeezing something
Stacking number of something
Stuffing something into something
Taking one of many similar things on the table
Taking something from somewhere
Taking something out of something
Tearing something into two pieces
Tearing something just a little bit
Throwing something
Throwing something against something
Throwing something in the air and catching it
Throwing something in the air and letting it fall
Throwing something onto a surface
Tilting something with something on it slightly so it doesn't fall down
Tilting something with something on it until it falls off
Tipping something over
Tipping something with something in it over, so something in it falls out
Touching (without moving) part of something
Trying but failing to attach something to something because it doesn't stick
Trying to bend something unbendable so nothing happens
Trying to pour something into something, but missing so it spills next to it
Turning something upside down
Turning the camera downwards while filming something
Turning the camera left while filming something
Turning the camera right while filming something
Turning the camera upwards while filming something
Twisting (wringing) something wet until water comes out
Twisting something
Uncovering something
Unfolding something
Wiping something off of something
""".splitlines()

_KINETICS400 = """\
abseiling
air drumming
answering questions
applauding
applying cream
archery
arm wrestling
arranging flowers
assembling computer
auctioning
baby waking up
baking cookies
balloon blowing
bandaging
barbequing
bartending
beatboxing
bee keeping
belly dancing
bench pressing
bending back
bending metal
biking through snow
blasting sand
blowing glass
blowing leaves
blowing nose
blowing out candles
bobsledding
bookbinding
bouncing on trampoline
bowling
braiding hair
breading or breadcrumbing
breakdancing
brush painting
brushing hair
brushing teeth
building cabinet
building shed
bungee jumping
busking
canoeing or kayaking
capoeira
carrying baby
cartwheeling
carving pumpkin
catching fish
catching or throwing baseball
catching or throwing frisbee
catching or throwing softball
celebrating
changing oil
changing wheel
checking tires
cheerleading
chopping wood
clapping
clay pottery making
clean and jerk
cleaning floor
cleaning gutters
cleaning pool
cleaning shoes
cleaning toilet
cleaning windows
climbing a rope
climbing ladder
climbing tree
contact juggling
cooking chicken
cooking egg
cooking on campfire
cooking sausages
counting money
country line dancing
cracking neck
crawling baby
crossing river
crying
curling hair
cutting nails
cutting pineapple
cutting watermelon
dancing ballet
dancing charleston
dancing gangnam style
dancing macarena
deadlifting
decorating the christmas tree
digging
dining
disc golfing
diving cliff
dodgeball
doing aerobics
doing laundry
doing nails
drawing
dribbling basketball
drinking
drinking beer
drinking shots
driving car
driving tractor
drop kicking
drumming fingers
dunking basketball
dying hair
eating burger
eating cake
eating carrots
eating chips
eating doughnuts
eating hotdog
eating ice cream
eating spaghetti
eating watermelon
egg hunting
exercising arm
exercising with an exercise ball
extinguishing fire
faceplanting
feeding birds
feeding fish
feeding goats
filling eyebrows
finger snapping
fixing hair
flipping pancake
flying kite
folding clothes
folding napkins
folding paper
front raises
frying vegetables
garbage collecting
gargling
getting a haircut
getting a tattoo
giving or receiving award
golf chipping
golf driving
golf putting
grinding meat
grooming dog
grooming horse
gymnastics tumbling
hammer throw
headbanging
headbutting
high jump
high kick
hitting baseball
hockey stop
holding snake
hopscotch
hoverboarding
hugging
hula hooping
hurdling
hurling (sport)
ice climbing
ice fishing
ice skating
ironing
javelin throw
jetskiing
jogging
juggling balls
juggling fire
juggling soccer ball
jumping into pool
jumpstyle dancing
kicking field goal
kicking soccer ball
kissing
kitesurfing
knitting
krumping
laughing
laying bricks
long jump
lunge
making a cake
making a sandwich
making bed
making jewelry
making pizza
making snowman
making sushi
making tea
marching
massaging back
massaging feet
massaging legs
massaging person's head
milking cow
mopping floor
motorcycling
moving furniture
mowing lawn
news anchoring
opening bottle
opening present
paragliding
parasailing
parkour
passing American football (in game)
passing American football (not in game)
peeling apples
peeling potatoes
petting animal (not cat)
petting cat
picking fruit
planting trees
plastering
playing accordion
playing badminton
playing bagpipes
playing basketball
playing bass guitar
playing cards
playing cello
playing chess
playing clarinet
playing controller
playing cricket
playing cymbals
playing didgeridoo
playing drums
playing flute
playing guitar
playing harmonica
playing harp
playing ice hockey
playing keyboard
playing kickball
playing monopoly
playing organ
playing paintball
playing piano
playing poker
playing recorder
playing saxophone
playing squash or racquetball
playing tennis
playing trombone
playing trumpet
playing ukulele
playing violin
playing volleyball
playing xylophone
pole vault
presenting weather forecast
pull ups
pumping fist
pumping gas
punching bag
punching person (boxing)
push up
pushing car
pushing cart
pushing wheelchair
reading book
reading newspaper
recording music
riding a bike
riding camel
riding elephant
riding mechanical bull
riding mountain bike
riding mule
riding or walking with horse
riding scooter
riding unicycle
ripping paper
robot dancing
rock climbing
rock scissors paper
roller skating
running on treadmill
sailing
salsa dancing
sanding floor
scrambling eggs
scuba diving
setting table
shaking hands
shaking head
sharpening knives
sharpening pencil
shaving head
shaving legs
shearing sheep
shining shoes
shooting basketball
shooting goal (soccer)
shot put
shoveling snow
shredding paper
shuffling cards
side kick
sign language interpreting
singing
situp
skateboarding
ski jumping
skiing (not slalom or crosscountry)
skiing crosscountry
skiing slalom
skipping rope
skydiving
slacklining
slapping
sled dog racing
smoking
smoking hookah
snatch weight lifting
sneezing
sniffing
snorkeling
snowboarding
snowkiting
snowmobiling
somersaulting
spinning poi
spray painting
spraying
springboard diving
squat
sticking tongue out
stomping grapes
stretching arm
stretching leg
strumming guitar
surfing crowd
surfing water
sweeping floor
swimming backstroke
swimming breast stroke
swimming butterfly stroke
swing dancing
swinging legs
swinging on something
sword fighting
tai chi
taking a shower
tango dancing
tap dancing
tapping guitar
tapping pen
tasting beer
tasting food
testifying
texting
throwing axe
throwing ball
throwing discus
tickling
tobogganing
tossing coin
tossing salad
training dog
trapezing
trimming or shaving beard
trimming trees
triple jump
tying bow tie
tying knot (not on a tie)
tying tie
unboxing
unloading truck
using computer
using remote controller (not gaming)
using segway
vault
waiting in line
walking the dog
washing dishes
washing feet
washing hair
washing hands
water skiing
water sliding
watering plants
waxing back
waxing chest
waxing eyebrows
waxing legs
weaving basket
welding
whistling
windsurfing
wrapping present
wrestling
writing
yawning
yoga
zumba
""".splitlines()

_KINETICS600 = """\
abseiling
acting in play
adjusting glasses
air drumming
alligator wrestling
answering questions
applauding
applying cream
archaeological excavation
archery
arguing
arm wrestling
arranging flowers
assembling bicycle
assembling computer
attending conference
auctioning
backflip (human)
baking cookies
bandaging
barbequing
bartending
base jumping
bathing dog
battle rope training
beatboxing
bee keeping
belly dancing
bench pressing
bending back
bending metal
biking through snow
blasting sand
blowdrying hair
blowing bubble gum
blowing glass
blowing leaves
blowing nose
blowing out candles
bobsledding
bodysurfing
bookbinding
bottling
bouncing on bouncy castle
bouncing on trampoline
bowling
braiding hair
breading or breadcrumbing
breakdancing
breaking boards
breathing fire
brush painting
brushing hair
brushing teeth
building cabinet
building lego
building sandcastle
building shed
bull fighting
bulldozing
bungee jumping
burping
busking
calculating
calligraphy
canoeing or kayaking
capoeira
capsizing
card stacking
card throwing
carrying baby
cartwheeling
carving ice
carving pumpkin
casting fishing line
catching fish
catching or throwing baseball
catching or throwing frisbee
catching or throwing softball
celebrating
changing gear in car
changing oil
changing wheel (not on bike)
checking tires
cheerleading
chewing gum
chiseling stone
chiseling wood
chopping meat
chopping vegetables
chopping wood
clam digging
clapping
clay pottery making
clean and jerk
cleaning gutters
cleaning pool
cleaning shoes
cleaning toilet
cleaning windows
climbing a rope
climbing ladder
climbing tree
coloring in
combing hair
contact juggling
contorting
cooking egg
cooking on campfire
cooking sausages (not on barbeque)
cooking scallops
cosplaying
counting money
country line dancing
cracking back
cracking knuckles
cracking neck
crawling baby
crossing eyes
crossing river
crying
cumbia
curling (sport)
curling hair
cutting apple
cutting nails
cutting orange
cutting pineapple
cutting watermelon
dancing ballet
dancing charleston
dancing gangnam style
dancing macarena
deadlifting
decorating the christmas tree
delivering mail
dining
directing traffic
disc golfing
diving cliff
docking boat
dodgeball
doing aerobics
doing jigsaw puzzle
doing laundry
doing nails
drawing
dribbling basketball
drinking shots
driving car
driving tractor
drooling
drop kicking
drumming fingers
dumpster diving
dunking basketball
dyeing eyebrows
dyeing hair
eating burger
eating cake
eating carrots
eating chips
eating doughnuts
eating hotdog
eating ice cream
eating spaghetti
eating watermelon
egg hunting
embroidering
exercising with an exercise ball
extinguishing fire
faceplanting
falling off bike
falling off chair
feeding birds
feeding fish
feeding goats
fencing (sport)
fidgeting
finger snapping
fixing bicycle
fixing hair
flint knapping
flipping pancake
fly tying
flying kite
folding clothes
folding napkins
folding paper
front raises
frying vegetables
geocaching
getting a haircut
getting a piercing
getting a tattoo
giving or receiving award
gold panning
golf chipping
golf driving
golf putting
gospel singing in church
grinding meat
grooming dog
grooming horse
gymnastics tumbling
hammer throw
hand washing clothes
head stand
headbanging
headbutting
high jump
high kick
historical reenactment
hitting baseball
hockey stop
holding snake
home roasting coffee
hopscotch
hoverboarding
huddling
hugging (not baby)
hugging baby
hula hooping
hurdling
hurling (sport)
ice climbing
ice fishing
ice skating
ice swimming
inflating balloons
installing carpet
ironing
ironing hair
javelin throw
jaywalking
jetskiing
jogging
juggling balls
juggling fire
juggling soccer ball
jumping bicycle
jumping into pool
jumping jacks
jumpstyle dancing
karaoke
kicking field goal
kicking soccer ball
kissing
kitesurfing
knitting
krumping
land sailing
laughing
lawn mower racing
laying bricks
laying concrete
laying stone
laying tiles
leatherworking
licking
lifting hat
lighting fire
lock picking
long jump
longboarding
looking at phone
luge
lunge
making a cake
making a sandwich
making balloon shapes
making bubbles
making cheese
making horseshoes
making jewelry
making paper aeroplanes
making pizza
making snowman
making sushi
making tea
making the bed
marching
marriage proposal
massaging back
massaging feet
massaging legs
massaging neck
massaging person's head
milking cow
moon walking
mopping floor
mosh pit dancing
motorcycling
mountain climber (exercise)
moving furniture
mowing lawn
mushroom foraging
needle felting
news anchoring
opening bottle (not wine)
opening door
opening present
opening refrigerator
opening wine bottle
packing
paragliding
parasailing
parkour
passing American football (in game)
passing american football (not in game)
passing soccer ball
peeling apples
peeling potatoes
person collecting garbage
petting animal (not cat)
petting cat
photobombing
photocopying
picking fruit
pillow fight
pinching
pirouetting
planing wood
planting trees
plastering
playing accordion
playing badminton
playing bagpipes
playing basketball
playing bass guitar
playing beer pong
playing blackjack
playing cello
playing chess
playing clarinet
playing controller
playing cricket
playing cymbals
playing darts
playing didgeridoo
playing dominoes
playing drums
playing field hockey
playing flute
playing gong
playing guitar
playing hand clapping games
playing harmonica
playing harp
playing ice hockey
playing keyboard
playing kickball
playing laser tag
playing lute
playing maracas
playing marbles
playing monopoly
playing netball
playing ocarina
playing organ
playing paintball
playing pan pipes
playing piano
playing pinball
playing ping pong
playing poker
playing polo
playing recorder
playing rubiks cube
playing saxophone
playing scrabble
playing squash or racquetball
playing tennis
playing trombone
playing trumpet
playing ukulele
playing violin
playing volleyball
playing with trains
playing xylophone
poking bellybutton
pole vault
polishing metal
popping balloons
pouring beer
preparing salad
presenting weather forecast
pull ups
pumping fist
pumping gas
punching bag
punching person (boxing)
push up
pushing car
pushing cart
pushing wheelbarrow
pushing wheelchair
putting in contact lenses
putting on eyeliner
putting on foundation
putting on lipstick
putting on mascara
putting on sari
putting on shoes
raising eyebrows
reading book
reading newspaper
recording music
repairing puncture
riding a bike
riding camel
riding elephant
riding mechanical bull
riding mule
riding or walking with horse
riding scooter
riding snow blower
riding unicycle
ripping paper
roasting marshmallows
roasting pig
robot dancing
rock climbing
rock scissors paper
roller skating
rolling pastry
rope pushdown
running on treadmill
sailing
salsa dancing
sanding floor
sausage making
sawing wood
scrambling eggs
scrapbooking
scrubbing face
scuba diving
separating eggs
setting table
sewing
shaking hands
shaking head
shaping bread dough
sharpening knives
sharpening pencil
shaving head
shaving legs
shearing sheep
shining flashlight
shining shoes
shooting basketball
shooting goal (soccer)
shopping
shot put
shoveling snow
shucking oysters
shuffling cards
shuffling feet
side kick
sign language interpreting
singing
sipping cup
situp
skateboarding
ski jumping
skiing crosscountry
skiing mono
skiing slalom
skipping rope
skipping stone
skydiving
slacklining
slapping
sled dog racing
sleeping
smashing
smelling feet
smoking
smoking hookah
smoking pipe
snatch weight lifting
sneezing
snorkeling
snowboarding
snowkiting
snowmobiling
somersaulting
spelunking
spinning poi
spray painting
springboard diving
square dancing
squat
standing on hands
staring
steer roping
sticking tongue out
stomping grapes
stretching arm
stretching leg
sucking lolly
surfing crowd
surfing water
sweeping floor
swimming backstroke
swimming breast stroke
swimming butterfly stroke
swimming front crawl
swing dancing
swinging baseball bat
swinging on something
sword fighting
sword swallowing
tackling
tagging graffiti
tai chi
talking on cell phone
tango dancing
tap dancing
tapping guitar
tapping pen
tasting beer
tasting food
tasting wine
testifying
texting
threading needle
throwing axe
throwing ball (not baseball or American football)
throwing discus
throwing knife
throwing snowballs
throwing tantrum
throwing water balloon
tickling
tie dying
tightrope walking
tiptoeing
tobogganing
tossing coin
training dog
trapezing
trimming or shaving beard
trimming shrubs
trimming trees
triple jump
twiddling fingers
tying bow tie
tying knot (not on a tie)
tying necktie
tying shoe laces
unboxing
unloading truck
using a microscope
using a paint roller
using a power drill
using a sledge hammer
using a wrench
using atm
using bagging machine
using circular saw
using inhaler
using puppets
using remote controller (not gaming)
using segway
vacuuming floor
visiting the zoo
wading through mud
wading through water
waiting in line
waking up
walking the dog
walking through snow
washing dishes
washing feet
washing hair
washing hands
watching tv
water skiing
water sliding
watering plants
waving hand
waxing back
waxing chest
waxing eyebrows
waxing legs
weaving basket
weaving fabric
welding
whistling
windsurfing
winking
wood burning (art)
wrapping present
wrestling
writing
yarn spinning
yawning
yoga
zumba
""".splitlines()

_DIVING48 = """\
Back_15som_05Twis_FREE
Back_15som_15Twis_FREE
Back_15som_25Twis_FREE
Back_15som_NoTwis_PIKE
Back_15som_NoTwis_TUCK
Back_25som_15Twis_PIKE
Back_25som_25Twis_PIKE
Back_25som_NoTwis_PIKE
Back_25som_NoTwis_TUCK
Back_2som_15Twis_FREE
Back_2som_25Twis_FREE
Back_35som_NoTwis_PIKE
Back_35som_NoTwis_TUCK
Back_3som_NoTwis_PIKE
Back_3som_NoTwis_TUCK
Back_Dive_NoTwis_PIKE
Back_Dive_NoTwis_TUCK
Forward_15som_1Twis_FREE
Forward_15som_2Twis_FREE
Forward_15som_NoTwis_PIKE
Forward_1som_NoTwis_PIKE
Forward_25som_1Twis_PIKE
Forward_25som_2Twis_PIKE
Forward_25som_3Twis_PIKE
Forward_25som_NoTwis_PIKE
Forward_25som_NoTwis_TUCK
Forward_35som_NoTwis_PIKE
Forward_35som_NoTwis_TUCK
Forward_45som_NoTwis_TUCK
Forward_Dive_NoTwis_PIKE
Forward_Dive_NoTwis_STR
Inward_15som_NoTwis_PIKE
Inward_15som_NoTwis_TUCK
Inward_25som_NoTwis_PIKE
Inward_25som_NoTwis_TUCK
Inward_35som_NoTwis_TUCK
Inward_Dive_NoTwis_PIKE
Reverse_15som_05Twis_FREE
Reverse_15som_15Twis_FREE
Reverse_15som_25Twis_FREE
Reverse_15som_35Twis_FREE
Reverse_15som_NoTwis_PIKE
Reverse_25som_15Twis_PIKE
Reverse_25som_NoTwis_PIKE
Reverse_25som_NoTwis_TUCK
Reverse_35som_NoTwis_TUCK
Reverse_Dive_NoTwis_PIKE
Reverse_Dive_NoTwis_TUCK
""".splitlines()

_ACTIVITYNET = """\
Applying sunscreen
Arm wrestling
Assembling bicycle
BMX
Baking cookies
Baton twirling
Beach soccer
Beer pong
Blow-drying hair
Blowing leaves
Playing ten pins
Braiding hair
Building sandcastles
Bullfighting
Calf roping
Camel ride
Canoeing
Capoeira
Carving jack-o-lanterns
Changing car wheel
Cleaning sink
Clipping cat claws
Croquet
Curling
Cutting the grass
Decorating the Christmas tree
Disc dog
Doing a powerbomb
Doing crunches
Drum corps
Elliptical trainer
Doing fencing
Fixing the roof
Fun sliding down
Futsal
Gargling mouthwash
Grooming dog
Hand car wash
Hanging wallpaper
Having an ice cream
Hitting a pinata
Hula hoop
Hurling
Ice fishing
Installing carpet
Kite flying
Kneeling
Knitting
Laying tile
Longboarding
Making a cake
Making a lemonade
Making an omelette
Mooping floor
Painting fence
Painting furniture
Peeling potatoes
Plastering
Playing beach volleyball
Playing blackjack
Playing congas
Playing drums
Playing ice hockey
Playing pool
Playing rubik cube
Powerbocking
Putting in contact lenses
Putting on shoes
Rafting
Raking leaves
Removing ice from car
Riding bumper cars
River tubing
Rock-paper-scissors
Rollerblading
Roof shingle removal
Rope skipping
Running a marathon
Scuba diving
Sharpening knives
Shuffleboard
Skiing
Slacklining
Snow tubing
Snowboarding
Spread mulch
Sumo
Surfing
Swimming
Swinging at the playground
Table soccer
Throwing darts
Trimming branches or hedges
Tug of war
Using the monkey bar
Using the rowing machine
Wakeboarding
Waterskiing
Waxing skis
Welding
Drinking coffee
Zumba
Doing kickboxing
Doing karate
Tango
Putting on makeup
High jump
Playing bagpipes
Cheerleading
Wrapping presents
Cricket
Clean and jerk
Preparing pasta
Bathing dog
Discus throw
Playing field hockey
Grooming horse
Preparing salad
Playing harmonica
Playing saxophone
Chopping wood
Washing face
Using the pommel horse
Javelin throw
Spinning
Ping-pong
Making a sandwich
Brushing hair
Playing guitarra
Doing step aerobics
Drinking beer
Playing polo
Snatch
Paintball
Long jump
Cleaning windows
Brushing teeth
Playing flauta
Tennis serve with ball bouncing
Bungee jumping
Triple jump
Horseback riding
Layup drill in basketball
Vacuuming floor
Cleaning shoes
Doing nails
Shot put
Fixing bicycle
Washing hands
Ironing clothes
Using the balance beam
Shoveling snow
Tumbling
Using parallel bars
Getting a tattoo
Rock climbing
Smoking hookah
Shaving
Getting a piercing
Springboard diving
Playing squash
Playing piano
Dodgeball
Smoking a cigarette
Sailing
Getting a haircut
Playing lacrosse
Cumbia
Tai chi
Painting
Mowing the lawn
Shaving legs
Walking the dog
Hammer throw
Skateboarding
Polishing shoes
Ballet
Hand washing clothes
Plataform diving
Playing violin
Breakdancing
Windsurfing
Hopscotch
Doing motocross
Mixing drinks
Starting a campfire
Belly dance
Removing curlers
Archery
Volleyball
Playing water polo
Playing racquetball
Kayaking
Polishing forniture
Playing kickball
Using uneven bars
Washing dishes
Pole vault
Playing accordion
Playing badminton
""".splitlines()


def _official_ucf101() -> list[str]:
    # classInd.txt is sorted as well, but for two pairs
    names = list(_UCF101_SORTED)
    for first, second in (("HammerThrow", "Hammering"), ("JumpRope", "JumpingJack")):
        i, j = names.index(first), names.index(second)
        names[i], names[j] = names[j], names[i]
    return names


_VIDEO_FOCALNETS = "the label files of TalalWasim/Video-FocalNets, whose checkpoints use this order"
_DVFL_NET = "the label files of hayatkhan8660-maker/DVFL-Net (sorted folder names)"

LABEL_SETS: dict[str, LabelSet] = {
    name: LabelSet(tuple(names), source)
    for name, names, source in (
        ("ucf50", _UCF50, f"{_DVFL_NET}, whose checkpoints use this order"),
        ("ucf101", _official_ucf101(), "the official classInd.txt of UCF101"),
        ("ucf101-sorted", _UCF101_SORTED, f"{_DVFL_NET}, whose checkpoints use this order"),
        (
            "hmdb51",
            _HMDB51,
            f"{_DVFL_NET}. Unverified for its checkpoints: the repository's HMDB51 lists carry other ids (2 to 52)",
        ),
        ("ssv2", _SSV2, _VIDEO_FOCALNETS),
        ("kinetics400", _KINETICS400, _VIDEO_FOCALNETS),
        ("kinetics600", _KINETICS600, _VIDEO_FOCALNETS),
        ("diving48", _DIVING48, _VIDEO_FOCALNETS),
        ("activitynet", _ACTIVITYNET, _VIDEO_FOCALNETS),
    )
}

__all__ = ["LABEL_SETS", "LabelSet", "read_labels"]
