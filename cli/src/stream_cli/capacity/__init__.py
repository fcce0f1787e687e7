"""`stream capacity`: what a load needs, from measured costs."""
