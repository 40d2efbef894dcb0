import { Play, RotateCw } from 'lucide-react';
import { useRetryEnvironment } from '@/api/queries';
import type { Environment } from '@/api/types';
import { whyOf } from '@/app/why';
import { Button, type ButtonSize, type ButtonVariant } from '@/ui/button';
import { toast } from '@/ui/toast';

/** Takes the way on out of a state that an environment does not leave by itself; nothing where it does. */
export function WayOn({
  environment,
  variant = 'secondary',
  size = 'sm',
  className,
}: {
  environment: Environment;
  variant?: ButtonVariant;
  size?: ButtonSize;
  className?: string;
}) {
  const retry = useRetryEnvironment();
  const action = whyOf(environment)?.action;
  if (action === undefined) return null;
  return (
    <Button
      size={size}
      variant={variant}
      icon={action === 'Start' ? Play : RotateCw}
      busy={retry.isPending}
      className={className}
      onClick={() =>
        retry.mutate(environment.id, {
          onError: (error) => toast.failed(`${environment.name} was not started`, error),
        })
      }
    >
      {action}
      <span className="sr-only"> {environment.name}</span>
    </Button>
  );
}
