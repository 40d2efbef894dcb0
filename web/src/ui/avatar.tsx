import { Avatar as Radix } from 'radix-ui';
import { cn } from './cn';

export function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter(Boolean);
  const first = Array.from(words[0] ?? '?')[0] ?? '?';
  const last = words.length > 1 ? (Array.from(words.at(-1) ?? '')[0] ?? '') : '';
  return (first + last).toUpperCase();
}

export function Avatar({
  name,
  src,
  className,
}: {
  name: string;
  src?: string | undefined;
  className?: string | undefined;
}) {
  return (
    <Radix.Root
      className={cn(
        'inline-flex size-6 shrink-0 items-center justify-center overflow-hidden rounded-full bg-accent-soft text-[10px] font-semibold text-accent-fg',
        className,
      )}
    >
      {src !== undefined && <Radix.Image src={src} alt="" className="size-full object-cover" />}
      <Radix.Fallback aria-hidden>{initials(name)}</Radix.Fallback>
    </Radix.Root>
  );
}
