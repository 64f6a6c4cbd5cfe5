"""The words of the world: few, frequent and plain, so that a small vocabulary holds each as one piece."""

WOMEN = (
    "Ann Bella Clara Dora Ella Fay Helen Iris Jane Kate Lily Mary Nora Olga Ruth Sarah Tess Vera"
    " Wendy Martha"
).split()
MEN = (
    "Adam Ben Carl David Edgar Fred George Henry Ivan Jack Leo Max Ned Oscar Paul Ralph Sam Tom"
    " Victor Walter"
).split()
JOBS = (
    "baker miller teacher farmer sailor doctor painter tailor smith judge singer gardener"
).split()
PLACES = (
    "mill barn kitchen garden church school market harbour library bakery stable cellar attic"
    " tower shop inn hall yard orchard forge"
).split()
THINGS = (
    "cup lamp book key ball coin drum hat rope basket knife bottle candle bell map shovel kite"
    " violin box apple"
).split()
COLOURS = "red blue green white black yellow brown grey".split()
