"""What reports are made of, whatever they report on: the HTML page, charts, pictures, numbers as text, colours."""
