import { CircleAlert } from 'lucide-react';
import { Label as Radix } from 'radix-ui';
import { useId, type ComponentProps, type ReactNode } from 'react';
import { cn } from './cn';

export function Label({ className, ...props }: ComponentProps<typeof Radix.Root>) {
  return <Radix.Root className={cn('text-sm font-medium text-fg', className)} {...props} />;
}

export type FieldControl = {
  id: string;
  'aria-describedby': string | undefined;
  'aria-invalid': true | undefined;
};

/** A label, a control, and what is to be said about it; an error takes the hint's place. */
export function Field({
  label,
  hint,
  error,
  aside,
  className,
  children,
}: {
  label: ReactNode;
  hint?: ReactNode;
  error?: ReactNode;
  /** Beside the label, at the right end. */
  aside?: ReactNode;
  className?: string | undefined;
  children: (control: FieldControl) => ReactNode;
}) {
  const id = useId();
  const wrong = error !== undefined && error !== null && error !== false && error !== '';
  const said = wrong || (hint !== undefined && hint !== null);
  return (
    <div className={cn('flex flex-col gap-1.5', className)}>
      <div className="flex items-baseline justify-between gap-3">
        <Label htmlFor={id}>{label}</Label>
        {aside !== undefined && <span className="text-xs text-fg-3">{aside}</span>}
      </div>
      {children({
        id,
        'aria-describedby': said ? `${id}-note` : undefined,
        'aria-invalid': wrong || undefined,
      })}
      <div id={`${id}-note`} aria-live="polite" className={cn('text-xs', !said && 'hidden')}>
        {wrong ? (
          <span className="flex items-start gap-1.5 text-bad">
            <CircleAlert aria-hidden className="mt-0.5 size-3 shrink-0" />
            <span>{error}</span>
          </span>
        ) : (
          <span className="text-fg-3">{hint}</span>
        )}
      </div>
    </div>
  );
}
