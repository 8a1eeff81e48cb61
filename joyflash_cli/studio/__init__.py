"""What made the embedded model: heads, speech, clips, training, evaluation (joyflash[train])."""
