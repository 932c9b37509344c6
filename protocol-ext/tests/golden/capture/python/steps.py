"""What the Python drivers share: steps whose failures are told, and leader moves."""


def step(name, work):
    """Runs one step; an error answer is a frame too, so a failure is printed and passed over."""
    try:
        work()
        print("done", name, flush=True)
    except Exception as error:  # any error of any client library
        print("error", name, repr(error)[:200], flush=True)


def move(topic):
    """Asks the capture to move the topic's leaders, and waits until it has."""
    print("MOVE", topic, flush=True)
    input()
