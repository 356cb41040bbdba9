"""Models in other programs' folders, used where they lie: nothing there is ever written."""
