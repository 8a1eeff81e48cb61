"""What a video of a speaking face measures: lips against sound, identity, quality."""
