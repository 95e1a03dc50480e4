"""Labels of devices: sheets, what their codes say, the codes, and the PDF that they are printed from."""
