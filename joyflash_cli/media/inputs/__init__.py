"""Pictures and sounds as users give them."""
