"""x"""
def install(context, adapter): pass
