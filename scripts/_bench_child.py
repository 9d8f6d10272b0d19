"""Run one measurement in a process of its own; imports nothing at the top because pools import it again in children."""

if __name__ == "__main__":
    from _bench_measure import main

    main()
