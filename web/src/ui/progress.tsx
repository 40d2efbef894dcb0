import { Progress as Radix } from 'radix-ui';
import { cn } from './cn';

/** How far something is, in percent; `null` when nobody knows. */
export function Progress({
  value,
  label,
  className,
}: {
  value: number | null;
  label: string;
  className?: string | undefined;
}) {
  return (
    <Radix.Root
      value={value}
      aria-label={label}
      className={cn('relative h-1 w-full overflow-hidden rounded-full bg-active', className)}
    >
      {value === null ? (
        <Radix.Indicator className="absolute inset-y-0 left-0 w-1/3 animate-indeterminate rounded-full bg-accent" />
      ) : (
        <Radix.Indicator
          className="h-full origin-left rounded-full bg-accent transition-transform duration-200"
          style={{ transform: `scaleX(${Math.min(100, Math.max(0, value)) / 100})` }}
        />
      )}
    </Radix.Root>
  );
}
