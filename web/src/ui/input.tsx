import { Eye, EyeOff, type LucideIcon } from 'lucide-react';
import { useState, type ComponentProps } from 'react';
import { cn } from './cn';

export const CONTROL =
  'w-full rounded-md border border-line-strong bg-surface text-base text-fg shadow-sm transition-colors hover:border-fg-3 focus-visible:border-ring focus-visible:outline-offset-0 disabled:opacity-50 aria-invalid:border-bad';

export type InputProps = ComponentProps<'input'> & { icon?: LucideIcon | undefined };

export function Input({ className, icon: Icon, type = 'text', ...props }: InputProps) {
  const input = (
    <input
      type={type}
      className={cn(CONTROL, 'h-9 px-3 pointer-coarse:h-11', Icon && 'pl-9', className)}
      {...props}
    />
  );
  if (!Icon) return input;
  return (
    <span className="relative block">
      <Icon
        aria-hidden
        className="pointer-events-none absolute top-1/2 left-3 size-4 -translate-y-1/2 text-fg-3"
      />
      {input}
    </span>
  );
}

export function PasswordInput(props: Omit<InputProps, 'type' | 'icon'>) {
  const [shown, setShown] = useState(false);
  const Icon = shown ? EyeOff : Eye;
  return (
    <span className="relative block">
      <Input {...props} type={shown ? 'text' : 'password'} className={cn('pr-10', props.className)} />
      <button
        type="button"
        aria-label={shown ? 'Hide the password' : 'Show the password'}
        aria-pressed={shown}
        onClick={() => setShown(!shown)}
        className="absolute inset-y-0 right-0 flex w-10 items-center justify-center rounded-md text-fg-3 hover:text-fg focus-inset"
      >
        <Icon aria-hidden className="size-4" />
      </button>
    </span>
  );
}

export function Textarea({ className, ...props }: ComponentProps<'textarea'>) {
  return <textarea className={cn(CONTROL, 'min-h-20 px-3 py-2', className)} {...props} />;
}
