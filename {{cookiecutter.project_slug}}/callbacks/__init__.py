"""What a user switches on and off."""

from callbacks.pictures import Pictures

# In every run, each a group of options: --pictures.count 8. `trainer.callbacks` adds more.
ALWAYS = {"pictures": Pictures}
