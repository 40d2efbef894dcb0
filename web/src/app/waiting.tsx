import { Logo } from './logo';

/** While the first screen is fetched: nothing for 200 ms, then the mark. */
export function Waiting() {
  return (
    <div role="status" className="flex h-dvh items-center justify-center">
      <span className="sr-only">Loading</span>
      <span className="animate-late">
        <Logo className="size-10 animate-skeleton" />
      </span>
    </div>
  );
}
